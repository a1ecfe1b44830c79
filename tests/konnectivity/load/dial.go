package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/pkg/client"
)

var (
	proxy = flag.String("proxy", "", "the server, as unix:PATH or HOST:PORT")
	mode  = flag.String("mode", "grpc", "how it is spoken to: grpc, http-connect, or direct: without it")
	reuse = flag.Bool("reuse", false, "all connections over one to the server, instead of one each (grpc)")
	ca    = flag.String("ca", "", "TLS: the authorities of the server's certificate")
	cert  = flag.String("cert", "", "TLS: the certificate shown to the server")
	key   = flag.String("key", "", "TLS: its private key")
)

// The answer to a CONNECT may be this long.
const connectAnswerBytes = 32 << 10

type dialer func(ctx context.Context) (net.Conn, error)

// newDialer makes connections to a target in the way that the flags say.
func newDialer(target string) (dialer, error) {
	secure, err := newTLS()
	if err != nil {
		return nil, err
	}
	switch *mode {
	case "direct":
		return func(ctx context.Context) (net.Conn, error) { return dialPlain(ctx, target) }, nil
	case "http-connect":
		return func(ctx context.Context) (net.Conn, error) { return dialConnect(ctx, secure, target) }, nil
	case "grpc":
		return newGrpcDialer(secure, target)
	}
	return nil, fmt.Errorf("-mode: %q is none", *mode)
}

// newTLS is nil where the server is spoken to in plain text.
func newTLS() (*tls.Config, error) {
	secure, err := certificates()
	if secure == nil || err != nil {
		return nil, err
	}
	secure.ServerName, _, err = net.SplitHostPort(*proxy)
	return secure, err
}

// certificates are those that the flags name, nil where there are none.
func certificates() (*tls.Config, error) {
	if *ca == "" {
		return nil, nil
	}
	authorities, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, errors.New("-ca: no certificate in it")
	}
	secure := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if *cert != "" {
		shown, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return nil, err
		}
		secure.Certificates = []tls.Certificate{shown}
	}
	return secure, nil
}

func newGrpcDialer(secure *tls.Config, target string) (dialer, error) {
	option := grpc.WithTransportCredentials(insecure.NewCredentials())
	if secure != nil {
		option = grpc.WithTransportCredentials(credentials.NewTLS(secure))
	}
	if *reuse {
		tunnel, err := client.CreateGRPCTunnel(context.Background(), *proxy, option)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (net.Conn, error) { return tunnel.DialContext(ctx, "tcp", target) }, nil
	}
	return func(ctx context.Context) (net.Conn, error) {
		tunnel, err := client.CreateSingleUseGrpcTunnelWithContext(ctx, context.Background(), *proxy, option)
		if err != nil {
			return nil, err
		}
		return tunnel.DialContext(ctx, "tcp", target)
	}, nil
}

func dialPlain(ctx context.Context, address string) (net.Conn, error) {
	var plain net.Dialer
	if path, found := strings.CutPrefix(address, "unix:"); found {
		return plain.DialContext(ctx, "unix", path)
	}
	return plain.DialContext(ctx, "tcp", address)
}

// dialConnect asks by HTTP CONNECT, as kube-apiserver does in that mode.
func dialConnect(ctx context.Context, secure *tls.Config, target string) (net.Conn, error) {
	conn, err := dialPlain(ctx, *proxy)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	// Whoever gives up takes the connection away.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	through, err := askConnect(conn, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return through, nil
}

func askConnect(conn net.Conn, target string) (net.Conn, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, connectAnswerBytes)
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 512))
		return nil, fmt.Errorf("CONNECT: %s: %s", answer.Status, text)
	}
	return &connected{Conn: conn, reader: reader}, nil
}

// connected is a connection of which some bytes may have been read together with the answer to CONNECT.
type connected struct {
	net.Conn
	reader *bufio.Reader
}

func (c *connected) Read(into []byte) (int, error) {
	if c.reader.Buffered() > 0 {
		return c.reader.Read(into)
	}
	return c.Conn.Read(into)
}

// CloseWrite ends this direction alone, if the connection can.
func (c *connected) CloseWrite() error {
	if half, can := c.Conn.(interface{ CloseWrite() error }); can {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
