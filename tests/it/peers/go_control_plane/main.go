// A control plane that is not ours: the library on which most others are built, as it is. Here is only what a user of it writes.
//
// It reads states as JSON, a line each: `{"version": ..., "Cluster": [...], ...}`, and serves the last one (ADS). It prints what it
// is asked. `delta` and `sotw` say whether it can say what has changed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"sort"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var urls = map[string]resource.Type{
	"Cluster":               resource.ClusterType,
	"ClusterLoadAssignment": resource.EndpointType,
	"Listener":              resource.ListenerType,
	"RouteConfiguration":    resource.RouteType,
	"Secret":                resource.SecretType,
}

// everybody is told the same.
type everybody struct{}

func (everybody) ID(*core.Node) string { return "all" }

// said tells the test what a client says, in the words of the other control plane of these tests.
func said(url string, node *core.Node, names []string, version any, problem string) {
	kind := string(protoreflect.FullName(url[len(resource.APITypePrefix):]).Name())
	sort.Strings(names)
	line, err := json.Marshal(map[string]any{
		"kind": kind, "node": node.GetId(), "names": names, "version": version, "error": problem,
	})
	if err != nil {
		log.Fatal(err)
	}
	// The tests look for a key and its value as the other one writes them.
	fmt.Printf("ASKED {\"kind\": %q, %s\n", kind, line[1:])
}

func callbacks() server.Callbacks {
	return server.CallbackFuncs{
		StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
			said(r.GetTypeUrl(), r.GetNode(), r.GetResourceNames(), r.GetVersionInfo(), r.GetErrorDetail().GetMessage())
			return nil
		},
		StreamDeltaRequestFunc: func(_ int64, r *discovery.DeltaDiscoveryRequest) error {
			said(r.GetTypeUrl(), r.GetNode(), r.GetResourceNamesSubscribe(), r.GetInitialResourceVersions(), r.GetErrorDetail().GetMessage())
			return nil
		},
		StreamDeltaResponseFunc: func(_ int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
			names := []string{}
			for _, one := range r.GetResources() {
				names = append(names, one.GetName())
			}
			sort.Strings(names)
			fmt.Printf("SENT %s %q %q\n", r.GetTypeUrl(), names, r.GetRemovedResources())
		},
	}
}

// snapshot is what a line means.
func snapshot(line []byte) (*cache.Snapshot, error) {
	state := map[string]json.RawMessage{}
	if err := json.Unmarshal(line, &state); err != nil {
		return nil, err
	}
	var version string
	if err := json.Unmarshal(state["version"], &version); err != nil {
		return nil, err
	}
	resources := map[resource.Type][]types.Resource{}
	for kind, url := range urls {
		var all []json.RawMessage
		if text, there := state[kind]; there {
			if err := json.Unmarshal(text, &all); err != nil {
				return nil, err
			}
		}
		message, err := protoregistry.GlobalTypes.FindMessageByURL(url)
		if err != nil {
			return nil, err
		}
		for _, text := range all {
			one := message.New().Interface()
			if err := protojson.Unmarshal(text, one); err != nil {
				return nil, fmt.Errorf("%s: %w", kind, err)
			}
			resources[url] = append(resources[url], types.Resource(proto.Message(one)))
		}
	}
	return cache.NewSnapshot(version, resources)
}

// wholeOnly cannot say what has changed, like servers that are older.
type wholeOnly struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	server.Server
}

func (w wholeOnly) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return w.Server.StreamAggregatedResources(stream)
}

func (w wholeOnly) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return w.UnimplementedAggregatedDiscoveryServiceServer.DeltaAggregatedResources(stream)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(true, everybody{}, nil)
	var plane discovery.AggregatedDiscoveryServiceServer = server.NewServer(ctx, snapshots, callbacks())
	if os.Args[2] == "sotw" {
		plane = wholeOnly{Server: plane.(server.Server)}
	}
	grpcServer := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, plane)
	go func() { log.Fatal(grpcServer.Serve(listener)) }()
	fmt.Println("PORT", listener.Addr().(*net.TCPAddr).Port)
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		next, err := snapshot(line)
		if err != nil {
			log.Fatal(err)
		}
		if err := snapshots.SetSnapshot(ctx, "all", next); err != nil {
			log.Fatal(err)
		}
	}
}
