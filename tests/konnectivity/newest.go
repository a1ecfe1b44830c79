//go:build !v028 && !v0014

package main

import (
	"context"
	"net"

	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

// newDialer is the library's as of v0.37: a tunnel for one connection, or one for many.
func newDialer() (dialer, error) {
	option, err := transport()
	if err != nil {
		return nil, err
	}
	if *reuse {
		tunnel, err := client.CreateGRPCTunnel(context.Background(), *proxy, option)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (net.Conn, error) { return tunnel.DialContext(ctx, "tcp", *target) }, nil
	}
	return func(ctx context.Context) (net.Conn, error) {
		tunnel, err := client.CreateSingleUseGrpcTunnelWithContext(ctx, context.Background(), *proxy, option)
		if err != nil {
			return nil, err
		}
		return tunnel.DialContext(ctx, "tcp", *target)
	}, nil
}
