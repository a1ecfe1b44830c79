// A client of tunnels on Konnectivity's own library: what kube-apiserver and others use. Each command does one thing many
// times and says on one line how it went. It must not know who serves.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

var (
	proxy  = flag.String("proxy", "", "the server, as unix:PATH or IP:PORT")
	ca     = flag.String("ca", "", "the authority of the server's certificate: TLS, as it is without this on a Unix socket")
	cert   = flag.String("cert", "", "the own certificate")
	key    = flag.String("key", "", "its key")
	target = flag.String("target", "", "what the agent connects to")
	reuse  = flag.Bool("reuse", false, "all connections over one to the server, instead of one each")
	count  = flag.Int("n", 1, "how often")
	atOnce = flag.Int("at-once", 1, "how many at a time")
	size   = flag.Int("size", 1, "bytes")
	write  = flag.Int("write", 32<<10, "bytes of one Write")
	// Nothing here waits longer.
	within = flag.Duration("within", 20*time.Second, "for one of them")
)

type dialer func(ctx context.Context) (net.Conn, error)

// transport is what the connection to the server is made with.
func transport() (grpc.DialOption, error) {
	if *ca == "" {
		return grpc.WithTransportCredentials(insecure.NewCredentials()), nil
	}
	pem, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if *cert != "" {
		own, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{own}
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(config)), nil
}

// echo sends bytes and wants the same back.
func echo(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := make([]byte, *size)
	rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(*write, len(rest))
			if _, err := conn.Write(rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- nil
	}()
	seen := make([]byte, len(sent))
	if err := readFull(conn, seen); err != nil {
		return err
	}
	if !bytes.Equal(sent, seen) {
		return errors.New("other bytes came back")
	}
	return <-wrote
}

// greeting wants bytes that the target sends first.
func greeting(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { go conn.Close() }()
	return readFull(conn, make([]byte, *size))
}

// abandon closes a connection in the middle of what the target sends.
func abandon(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	if err := readFull(conn, make([]byte, *size)); err != nil {
		return err
	}
	go conn.Close()
	return nil
}

// cancel gives a dial up after a moment by chance; that it ends at all is what counts.
func cancel(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.Int63n(int64(5*time.Millisecond))))
	defer cancel()
	conn, err := dial(ctx)
	if err == nil {
		conn.Close()
	}
	return nil
}

// vanish closes a connection at any moment of its life, from two threads, while another reads and a third writes.
func vanish(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	group.Add(2)
	go func() { defer group.Done(); io.Copy(io.Discard, conn) }()
	go func() {
		defer group.Done()
		for bytes := make([]byte, *write); ; {
			if _, err := conn.Write(bytes); err != nil {
				return
			}
		}
	}()
	time.Sleep(time.Duration(rand.Int63n(int64(50 * time.Millisecond))))
	go conn.Close()
	conn.Close()
	// The library's reads and writes end by the close.
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-time.After(*within):
		return errors.New("reading or writing goes on after the close")
	}
}

// unread lets a connection be for a while without reading what comes; the library itself gives up after 10 s.
func unread(dial dialer) error {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { go conn.Close() }()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	return nil
}

var (
	beginTogether sync.Once
	opened        sync.WaitGroup
)

// together has a byte there and back, and closes once all the others have had theirs: as many at a time as there are.
func together(dial dialer) error {
	beginTogether.Do(func() { opened.Add(*count) })
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	if err := readFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	opened.Done()
	all := make(chan struct{})
	go func() { opened.Wait(); close(all) }()
	select {
	case <-all:
		return nil
	case <-time.After(*within):
		return errors.New("others have had nothing in time")
	}
}

func readFull(conn net.Conn, into []byte) error {
	done := make(chan error, 1)
	go func() { _, err := io.ReadFull(conn, into); done <- err }()
	select {
	case err := <-done:
		return err
	case <-time.After(*within):
		return errors.New("nothing came in time")
	}
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "echo|greeting|abandon|cancel|vanish|unread|together [flags]")
		os.Exit(2)
	}
	commands := map[string]func(dialer) error{
		"echo": echo, "greeting": greeting, "abandon": abandon, "cancel": cancel, "vanish": vanish, "unread": unread, "together": together,
	}
	command := commands[os.Args[1]]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	flag.Parse()
	dial, err := newDialer()
	if err != nil || command == nil {
		fmt.Fprintln(os.Stderr, "cannot begin:", err)
		os.Exit(2)
	}
	var mutex sync.Mutex
	var group sync.WaitGroup
	good, bad, last := 0, 0, ""
	begin := time.Now()
	for worker := range *atOnce {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := worker; i < *count; i += *atOnce {
				err := command(dial)
				mutex.Lock()
				if err == nil {
					good++
				} else {
					bad++
					last = err.Error()
				}
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"good": good, "bad": bad, "last": last, "milliseconds": time.Since(begin).Milliseconds(),
	})
}
