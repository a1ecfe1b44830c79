package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	pb "sigs.k8s.io/apiserver-network-proxy/konnectivity-client/proto/client"
)

// A server and an agent on grpc-go that speak Konnectivity's wire and move packets in the originals' manner: what reads a
// stream puts packets into a channel, and somebody else takes them from it, one after the other. They do nothing else: they
// choose no agent, count nothing, authorize nobody and recover from nothing. The originals do, and so take more than these,
// which can be measured in the same round as others.

var agents = flag.String("agents", "", "relay-server: where the agent comes, as HOST:PORT")

const (
	// What the agent reads of a target at once.
	relayBytes = 32 << 10
	// Packets between who reads and who serves, as the originals have it: of a stream at the server, and of a connection
	// at the agent.
	streamPackets     = 10
	connectionPackets = 150
)

// agentConnect is the agents' method, whose service the client's module does not have.
const agentConnect = "/AgentService/Connect"

// relayServer has clients' streams by what names them: the number of a dial, then that of a connection.
type relayServer struct {
	// Nil until it has come. A stream takes one packet at a time.
	agent   grpc.ServerStream
	sending sync.Mutex

	dials       map[int64]grpc.ServerStream
	connections map[int64]grpc.ServerStream
	naming      sync.Mutex
}

// serveRelay goes on until it is ended. It says a line when the agent has come.
func serveRelay() error {
	secure, err := relayTLS()
	if err != nil {
		return err
	}
	relay := &relayServer{dials: map[int64]grpc.ServerStream{}, connections: map[int64]grpc.ServerStream{}}
	failed := make(chan error)
	serve := func(address, service, method string, handler grpc.StreamHandler) error {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(secure)))
		stream := grpc.StreamDesc{StreamName: method, Handler: handler, ServerStreams: true, ClientStreams: true}
		server.RegisterService(&grpc.ServiceDesc{ServiceName: service, Streams: []grpc.StreamDesc{stream}}, nil)
		go func() { failed <- server.Serve(listener) }()
		return nil
	}
	client := func(_ any, stream grpc.ServerStream) error { return relay.serveClient(stream) }
	agent := func(_ any, stream grpc.ServerStream) error { return relay.serveAgent(stream) }
	if err := serve(*listen, "ProxyService", "Proxy", client); err != nil {
		return err
	}
	if err := serve(*agents, "AgentService", "Connect", agent); err != nil {
		return err
	}
	return <-failed
}

// relayTLS asks clients and agents for a certificate of the authority that the server shows one of.
func relayTLS() (*tls.Config, error) {
	secure, err := certificates()
	if err != nil {
		return nil, err
	}
	if secure == nil {
		return nil, errors.New("-ca: there is no relay without TLS")
	}
	secure.ClientCAs, secure.ClientAuth = secure.RootCAs, tls.RequireAndVerifyClientCert
	return secure, nil
}

// received are the packets of a stream, until it ends or has no more; then why is sent on the second channel.
func received(stream grpc.Stream) (<-chan *pb.Packet, <-chan error) {
	packets, ended := make(chan *pb.Packet, streamPackets), make(chan error, 1)
	go func() {
		defer close(packets)
		for {
			packet := new(pb.Packet)
			if err := stream.RecvMsg(packet); err != nil {
				ended <- err
				return
			}
			select {
			case packets <- packet:
			case <-stream.Context().Done():
				ended <- stream.Context().Err()
				return
			}
		}
	}()
	return packets, ended
}

func (r *relayServer) serveClient(stream grpc.ServerStream) error {
	packets, ended := received(stream)
	for packet := range packets {
		if packet.Type == pb.PacketType_DIAL_REQ {
			r.naming.Lock()
			r.dials[packet.GetDialRequest().Random] = stream
			r.naming.Unlock()
		}
		if err := r.sendAgent(packet); err != nil {
			return err
		}
	}
	return <-ended
}

func (r *relayServer) sendAgent(packet *pb.Packet) error {
	r.sending.Lock()
	defer r.sending.Unlock()
	if r.agent == nil {
		return status.Error(codes.Unavailable, "no agent")
	}
	return r.agent.SendMsg(packet)
}

func (r *relayServer) serveAgent(stream grpc.ServerStream) error {
	r.sending.Lock()
	r.agent = stream
	r.sending.Unlock()
	say("ready")
	packets, ended := received(stream)
	for packet := range packets {
		// A client that has gone is none of the agent's business.
		if client := r.clientOf(packet); client != nil {
			client.SendMsg(packet)
		}
	}
	return <-ended
}

// clientOf is the stream that a packet of the agent is for, nil if it is no longer there.
func (r *relayServer) clientOf(packet *pb.Packet) grpc.ServerStream {
	r.naming.Lock()
	defer r.naming.Unlock()
	switch packet.Type {
	case pb.PacketType_DIAL_RSP:
		answer := packet.GetDialResponse()
		client := r.dials[answer.Random]
		delete(r.dials, answer.Random)
		r.connections[answer.ConnectID] = client
		return client
	case pb.PacketType_CLOSE_RSP:
		id := packet.GetCloseResponse().ConnectID
		client := r.connections[id]
		delete(r.connections, id)
		return client
	}
	return r.connections[packet.GetData().GetConnectID()]
}

// relayAgent has connections to targets by their number.
type relayAgent struct {
	stream  grpc.ClientStream
	sending sync.Mutex

	last        atomic.Int64
	connections sync.Map
}

// relayed is a connection to a target, and what goes there.
type relayed struct {
	net.Conn
	data chan []byte
	// Closed with it.
	gone <-chan struct{}
}

// runRelayAgent goes on until its stream ends.
func runRelayAgent() error {
	secure, err := newTLS()
	if err != nil {
		return err
	}
	server, err := grpc.NewClient(*proxy, grpc.WithTransportCredentials(credentials.NewTLS(secure)))
	if err != nil {
		return err
	}
	both := grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := server.NewStream(context.Background(), &both, agentConnect, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	agent := &relayAgent{stream: stream}
	for {
		packet := new(pb.Packet)
		if err := stream.RecvMsg(packet); err != nil {
			return err
		}
		agent.take(packet)
	}
}

func (a *relayAgent) take(packet *pb.Packet) {
	switch packet.Type {
	case pb.PacketType_DIAL_REQ:
		go a.dial(packet.GetDialRequest())
	case pb.PacketType_DATA:
		if conn := a.find(packet.GetData().ConnectID); conn != nil {
			select {
			case conn.data <- packet.GetData().Data:
			case <-conn.gone:
			}
		}
	case pb.PacketType_CLOSE_REQ:
		// The one that reads says that it is closed.
		if conn := a.find(packet.GetCloseRequest().ConnectID); conn != nil {
			conn.Close()
		}
	}
}

// find is nil where there is none of that number.
func (a *relayAgent) find(id int64) *relayed {
	conn, found := a.connections.Load(id)
	if !found {
		return nil
	}
	return conn.(*relayed)
}

func (a *relayAgent) dial(request *pb.DialRequest) {
	answer := &pb.DialResponse{Random: request.Random}
	plain, err := net.Dial(request.Protocol, request.Address)
	if err != nil {
		answer.Error = err.Error()
		a.send(&pb.Packet{Type: pb.PacketType_DIAL_RSP, Payload: &pb.Packet_DialResponse{DialResponse: answer}})
		return
	}
	gone := make(chan struct{})
	defer close(gone)
	conn := &relayed{plain, make(chan []byte, connectionPackets), gone}
	answer.ConnectID = a.last.Add(1)
	a.connections.Store(answer.ConnectID, conn)
	a.send(&pb.Packet{Type: pb.PacketType_DIAL_RSP, Payload: &pb.Packet_DialResponse{DialResponse: answer}})
	go conn.write()
	a.read(conn, answer.ConnectID)
}

func (c *relayed) write() {
	for {
		select {
		case data := <-c.data:
			if _, err := c.Write(data); err != nil {
				c.Close()
				return
			}
		case <-c.gone:
			return
		}
	}
}

func (a *relayAgent) read(conn net.Conn, id int64) {
	buffer := make([]byte, relayBytes)
	for {
		count, err := conn.Read(buffer)
		if count > 0 {
			data := &pb.Data{ConnectID: id, Data: buffer[:count]}
			a.send(&pb.Packet{Type: pb.PacketType_DATA, Payload: &pb.Packet_Data{Data: data}})
		}
		if err != nil {
			break
		}
	}
	a.connections.Delete(id)
	conn.Close()
	closed := &pb.CloseResponse{ConnectID: id}
	a.send(&pb.Packet{Type: pb.PacketType_CLOSE_RSP, Payload: &pb.Packet_CloseResponse{CloseResponse: closed}})
}

// send needs no answer: a stream that has ended ends the agent.
func (a *relayAgent) send(packet *pb.Packet) {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.stream.SendMsg(packet)
}
