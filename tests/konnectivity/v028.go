//go:build v028

package main

import (
	"context"
	"net"

	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

// newDialer is the library's from v0.0.33 to v0.36: a tunnel for one connection.
func newDialer() (dialer, error) {
	option, err := transport()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (net.Conn, error) {
		tunnel, err := client.CreateSingleUseGrpcTunnelWithContext(ctx, context.Background(), *proxy, option)
		if err != nil {
			return nil, err
		}
		return tunnel.DialContext(ctx, "tcp", *target)
	}, nil
}
