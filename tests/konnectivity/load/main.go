// The load of `cargo xtask bench tunnel`, on Konnectivity's own library, and the targets that it goes to. dial.go has the
// ways of connecting, load.go the loads, targets.go the targets, relay.go what stands beside Cloverleaf. Loads must not know
// who serves.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

var (
	target = flag.String("target", "", "where connections go, as the agent finds it")
	count  = flag.Int("n", 1, "how often, or how many")
	atOnce = flag.Int("at-once", 1, "how many at a time")
	write  = flag.Int("write", 32<<10, "bytes of one write, and of one read")
	within = flag.Duration("within", 20*time.Second, "for a dial, a round trip, an answer")
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "targets, relay-server, relay-agent, or the name of a load, then flags")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = append(os.Args[:1], os.Args[2:]...)
	flag.Parse()
	var err error
	switch load := loads[name]; {
	case name == "targets":
		err = serveTargets(*listen)
	case name == "relay-server":
		err = serveRelay()
	case name == "relay-agent":
		err = runRelayAgent()
	case load != nil:
		err = runLoad(load)
	default:
		err = fmt.Errorf("%q is no load", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
