// The same client on an older version of the library: go build -modfile=v0014.mod -tags=v0014
module cloverleaf/tests/konnectivity

go 1.26

require (
	google.golang.org/genproto v0.0.0-20260526163538-3dc84a4a5aaa
	google.golang.org/grpc v1.83.0
	k8s.io/klog/v2 v2.140.0
	sigs.k8s.io/apiserver-network-proxy/konnectivity-client v0.0.14
)

require (
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	golang.org/x/net v0.55.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
	golang.org/x/text v0.37.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260526163538-3dc84a4a5aaa // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)
