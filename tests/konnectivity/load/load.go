package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	direction    = flag.String("direction", "down", "bulk, unread: up, down or both at once")
	beside       = flag.Int("beside", 0, "rtt: connections that load -beside-target at the same time")
	besideTarget = flag.String("beside-target", "", "a source, or for unread what is not read from or does not read")
	seconds      = flag.Float64("seconds", 3, "of load that counts")
	warmUp       = flag.Duration("warm-up", 700*time.Millisecond, "of load before the part that counts")
	listen       = flag.String("listen", "", "targets: the address of this host; relay-server: where clients come, as HOST:PORT")
)

const (
	// After which what was opened has settled.
	settle = time.Second
	// So that everything on the way of a connection that nobody reads is full.
	fill = 2 * time.Second
	// Round trips before those that count.
	warmUpTrips = 100
	// No load and no target goes on for longer.
	loadMax = 2 * time.Minute
	// Greetings that do not come are waited for so long, and so many of them.
	greetingWithin   = 3 * time.Second
	greetingsLostMax = 10
)

// figures are what a load has to say, by name.
type figures map[string]float64

// The loads. Each says "begin" and "end" around what counts, then its figures.
var loads = map[string]func() (figures, error){
	"bulk":        bulk,
	"rtt":         roundTrips,
	"connections": connections,
	"idle":        idle,
	"unread":      unread,
	"greetings":   greetings,
	"half-close":  halfClose,
}

func runLoad(load func() (figures, error)) error {
	time.AfterFunc(loadMax, func() {
		fmt.Fprintln(os.Stderr, "not done in time")
		os.Exit(1)
	})
	seen, err := load()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func say(line string) { fmt.Println(line) }

// counted runs what counts, and says how many seconds that took.
func counted(during func() error) (float64, error) {
	say("begin")
	begun := time.Now()
	err := during()
	took := time.Since(begun).Seconds()
	say("end")
	return took, err
}

// forAWhile fails at the first failure of those who work meanwhile.
func forAWhile(failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	case <-time.After(length()):
		return nil
	}
}

func length() time.Duration { return time.Duration(*seconds * float64(time.Second)) }

func dialNow(dial dialer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *within)
	defer cancel()
	return dial(ctx)
}

// bulk moves bytes as fast as it goes.
func bulk() (figures, error) {
	dial, err := newDialer(*target)
	if err != nil {
		return nil, err
	}
	var up, down atomic.Int64
	failed := make(chan error, 2**atOnce)
	for range *atOnce {
		conn, err := dialNow(dial)
		if err != nil {
			return nil, err
		}
		if *direction != "down" {
			go func() { failed <- pump(conn.Write, &up) }()
		} else if _, err := conn.Write([]byte("x")); err != nil {
			return nil, err
		}
		if *direction != "up" {
			go func() { failed <- pump(conn.Read, &down) }()
		}
	}
	time.Sleep(*warmUp)
	upBefore, downBefore := up.Load(), down.Load()
	took, err := counted(func() error { return forAWhile(failed) })
	return figures{
		"seconds":    took,
		"up_bytes":   float64(up.Load() - upBefore),
		"down_bytes": float64(down.Load() - downBefore),
	}, err
}

// pump reads or writes until that fails.
func pump(once func([]byte) (int, error), moved *atomic.Int64) error {
	buffer := make([]byte, *write)
	for {
		count, err := once(buffer)
		moved.Add(int64(count))
		if err != nil {
			return err
		}
	}
}

// trip is a byte there and back, bounded.
func trip(conn net.Conn, bound *time.Timer) error {
	bound.Reset(*within)
	_, err := conn.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	bound.Stop()
	return err
}

// newBound ends the program: the library's connections know no deadline.
func newBound() *time.Timer {
	return time.AfterFunc(loadMax, func() {
		fmt.Fprintln(os.Stderr, "a round trip did not end")
		os.Exit(1)
	})
}

// trips counts for a while.
func trips(conn net.Conn) (figures, error) {
	bound := newBound()
	var each []time.Duration
	took, err := counted(func() error {
		for begun := time.Now(); time.Since(begun) < length(); {
			start := time.Now()
			if err := trip(conn, bound); err != nil {
				return err
			}
			each = append(each, time.Since(start))
		}
		return nil
	})
	seen := percentiles(each)
	seen["seconds"] = took
	return seen, err
}

func percentiles(each []time.Duration) figures {
	slices.Sort(each)
	at := func(share float64) float64 {
		if len(each) == 0 {
			return 0
		}
		return float64(each[int(share*float64(len(each)-1))].Nanoseconds()) / 1e3
	}
	return figures{"count": float64(len(each)), "p50_us": at(0.5), "p99_us": at(0.99), "max_us": at(1)}
}

// warm is a connection to an echo that has had some round trips.
func warm(address string) (net.Conn, error) {
	dial, err := newDialer(address)
	if err != nil {
		return nil, err
	}
	conn, err := dialNow(dial)
	if err != nil {
		return nil, err
	}
	bound := newBound()
	for range warmUpTrips {
		if err := trip(conn, bound); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// roundTrips are those of one connection, beside others that load.
func roundTrips() (figures, error) {
	dial, err := newDialer(*besideTarget)
	if err != nil {
		return nil, err
	}
	var moved atomic.Int64
	failed := make(chan error, *beside)
	for range *beside {
		conn, err := dialNow(dial)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write([]byte("x")); err != nil {
			return nil, err
		}
		go func() { failed <- pump(conn.Read, &moved) }()
	}
	conn, err := warm(*target)
	if err != nil {
		return nil, err
	}
	time.Sleep(*warmUp)
	before := moved.Load()
	seen, err := trips(conn)
	seen["beside_bytes"] = float64(moved.Load() - before)
	select {
	case stopped := <-failed:
		err = errors.Join(err, stopped)
	default:
	}
	return seen, err
}

// connections dial, have a byte there and back, and close.
func connections() (figures, error) {
	dial, err := newDialer(*target)
	if err != nil {
		return nil, err
	}
	var counts, stop atomic.Bool
	var mutex sync.Mutex
	var all []time.Duration
	failed := make(chan error, *atOnce)
	var group sync.WaitGroup
	for range *atOnce {
		group.Add(1)
		go func() {
			defer group.Done()
			bound := newBound()
			var each []time.Duration
			for !stop.Load() {
				start := time.Now()
				if err := oneTrip(dial, bound); err != nil {
					failed <- err
					return
				}
				if counts.Load() && !stop.Load() {
					each = append(each, time.Since(start))
				}
			}
			mutex.Lock()
			defer mutex.Unlock()
			all = append(all, each...)
		}()
	}
	time.Sleep(*warmUp)
	took, err := counted(func() error {
		counts.Store(true)
		defer stop.Store(true)
		return forAWhile(failed)
	})
	group.Wait()
	seen := percentiles(all)
	seen["seconds"] = took
	return seen, err
}

// oneTrip is a connection with a round trip. Its time ends with the close, which waits for the other side's.
func oneTrip(dial dialer, bound *time.Timer) error {
	conn, err := dialNow(dial)
	if err != nil {
		return err
	}
	defer conn.Close()
	return trip(conn, bound)
}

// idle holds connections that have had a byte each way, until its input ends.
func idle() (figures, error) {
	dial, err := newDialer(*target)
	if err != nil {
		return nil, err
	}
	held := make(chan net.Conn, *count)
	failed := make(chan error, *atOnce)
	for worker := range *atOnce {
		go func() {
			bound := newBound()
			for i := worker; i < *count; i += *atOnce {
				conn, err := dialNow(dial)
				if err == nil {
					err = trip(conn, bound)
				}
				if err != nil {
					failed <- err
					return
				}
				held <- conn
			}
			failed <- nil
		}()
	}
	for range *atOnce {
		if err := <-failed; err != nil {
			return nil, err
		}
	}
	time.Sleep(settle)
	took, err := counted(func() error {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
	return figures{"seconds": took, "count": float64(len(held))}, err
}

// unread has a connection that nobody reads, and round trips and a dial beside it.
func unread() (figures, error) {
	conn, err := warm(*target)
	if err != nil {
		return nil, err
	}
	dial, err := newDialer(*besideTarget)
	if err != nil {
		return nil, err
	}
	stuck, err := dialNow(dial)
	if err != nil {
		return nil, err
	}
	var moved atomic.Int64
	if *direction == "up" {
		go pump(stuck.Write, &moved)
	} else if _, err := stuck.Write([]byte("x")); err != nil {
		return nil, err
	}
	time.Sleep(fill)
	seen, err := trips(conn)
	if err != nil {
		return nil, err
	}
	dial, err = newDialer(*target)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	err = oneTrip(dial, newBound())
	seen["dial_us"] = float64(time.Since(begun).Microseconds())
	return seen, err
}

// greetings come from targets that speak first.
func greetings() (figures, error) {
	dial, err := newDialer(*target)
	if err != nil {
		return nil, err
	}
	var each []time.Duration
	lost := 0
	took, err := counted(func() error {
		for range *count {
			start := time.Now()
			conn, err := dialNow(dial)
			if err != nil {
				return err
			}
			if greeted(conn) {
				each = append(each, time.Since(start))
			} else if lost++; lost == greetingsLostMax {
				return fmt.Errorf("%d greetings came, %d did not", len(each), lost)
			}
			go conn.Close()
		}
		return nil
	})
	seen := percentiles(each)
	seen["seconds"] = took
	return seen, err
}

func greeted(conn net.Conn) bool {
	read := make(chan error, 1)
	go func() { _, err := io.ReadFull(conn, make([]byte, greetingBytes)); read <- err }()
	select {
	case err := <-read:
		return err == nil
	case <-time.After(greetingWithin):
		return false
	}
}

// halfClose says something, ends its own direction and reads the answer; the shortest one counts.
func halfClose() (figures, error) {
	dial, err := newDialer(*target)
	if err != nil {
		return nil, err
	}
	least := int64(answerBytes)
	took, err := counted(func() error {
		for range *count {
			bytes, err := answered(dial)
			if err != nil {
				return err
			}
			least = min(least, bytes)
		}
		return nil
	})
	return figures{"seconds": took, "count": float64(*count), "bytes": float64(least)}, err
}

func answered(dial dialer) (int64, error) {
	conn, err := dialNow(dial)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return 0, err
	}
	half, can := conn.(interface{ CloseWrite() error })
	if !can {
		return 0, errors.New("this client cannot end one direction alone")
	}
	if err := half.CloseWrite(); err != nil {
		return 0, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(*within)); err != nil {
		return 0, err
	}
	// However it ends, what came is what counts.
	bytes, _ := io.Copy(io.Discard, conn)
	return bytes, nil
}
