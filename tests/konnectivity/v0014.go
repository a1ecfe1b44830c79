//go:build v0014

package main

import (
	"context"
	"net"

	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

// newDialer is the library's as of v0.0.14, of 2020: a tunnel for one connection, and no way to give a dial up.
func newDialer() (dialer, error) {
	option, err := transport()
	if err != nil {
		return nil, err
	}
	return func(context.Context) (net.Conn, error) {
		tunnel, err := client.CreateSingleUseGrpcTunnel(*proxy, option)
		if err != nil {
			return nil, err
		}
		return tunnel.Dial("tcp", *target)
	}, nil
}
