package main

import (
	"io"
	"net"
	"time"
)

// What targets read and write at once, and what an echo does, which is there for each of many short connections.
const (
	targetBytes = 256 << 10
	echoBytes   = 64 << 10
)

// What a target that speaks first says.
const greetingBytes = 64

// What one says that waits for the end of what it hears.
const answerBytes = 64 << 10

// The targets, each on a port of its own.
var targets = map[string]func(net.Conn){
	"9000": targetEcho,
	"9001": targetSource,
	"9002": targetSink,
	"9003": targetDeaf,
	"9004": targetBoth,
	"9005": targetGreets,
	"9006": targetAnswers,
}

// serveTargets says a line when all listen, and goes on until it is ended.
func serveTargets(host string) error {
	failed := make(chan error)
	for port, target := range targets {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		go func() { failed <- serveTarget(listener, target) }()
	}
	say("ready")
	return <-failed
}

func serveTarget(listener net.Listener, target func(net.Conn)) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			target(conn)
		}()
	}
}

func targetEcho(conn net.Conn) {
	// Not io.Copy alone: it would splice, and few programs answer that way.
	plain := struct{ io.Writer }{conn}
	io.CopyBuffer(plain, struct{ io.Reader }{conn}, make([]byte, echoBytes))
}

// targetSource writes as long as it can, once it has heard a byte.
func targetSource(conn net.Conn) {
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		writeOn(conn)
	}
}

func writeOn(conn net.Conn) {
	buffer := make([]byte, targetBytes)
	for err := error(nil); err == nil; {
		_, err = conn.Write(buffer)
	}
}

func targetSink(conn net.Conn) {
	buffer := make([]byte, targetBytes)
	for err := error(nil); err == nil; {
		_, err = conn.Read(buffer)
	}
}

// targetDeaf reads nothing.
func targetDeaf(net.Conn) { time.Sleep(loadMax) }

// targetBoth reads and writes as fast as it can, once it has heard a byte.
func targetBoth(conn net.Conn) {
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		go writeOn(conn)
		targetSink(conn)
	}
}

func targetGreets(conn net.Conn) {
	if _, err := conn.Write(make([]byte, greetingBytes)); err == nil {
		targetSink(conn)
	}
}

// targetAnswers waits for the end of what it hears.
func targetAnswers(conn net.Conn) {
	if _, err := io.Copy(io.Discard, conn); err == nil {
		conn.Write(make([]byte, answerBytes))
	}
}
