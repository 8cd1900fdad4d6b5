// A provider of OpenFaaS that somebody else could have written, on the SDK that all of them are written on. It keeps
// everything in memory; its functions are one HTTP server that tells what it was asked.
//
// It serves on a free port of 127.0.0.1, which it prints. Basic auth is by the SDK, with the files in the folder that
// is its argument.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/mux"
	bootstrap "github.com/openfaas/faas-provider"
	"github.com/openfaas/faas-provider/logs"
	"github.com/openfaas/faas-provider/proxy"
	"github.com/openfaas/faas-provider/types"
)

const defaultNamespace = "openfaas-fn"

// How often a function is asked for before what it was scaled to is there.
const slowness = 3

type function struct {
	types.FunctionStatus
	asked int
	lines []logs.Message
}

type provider struct {
	sync.Mutex
	functions  map[string]*function
	secrets    map[string]map[string]bool
	namespaces map[string]types.FunctionNamespace
	runner     url.URL
}

func main() {
	runner := listen(http.HandlerFunc(tell))
	p := &provider{
		functions:  map[string]*function{},
		secrets:    map[string]map[string]bool{},
		namespaces: map[string]types.FunctionNamespace{defaultNamespace: {Name: defaultNamespace}},
		runner:     url.URL{Scheme: "http", Host: runner},
	}
	timeout := 20 * time.Second
	port := 0
	config := types.FaaSConfig{
		TCPPort:         &port,
		ReadTimeout:     timeout,
		WriteTimeout:    timeout,
		EnableBasicAuth: true,
		SecretMountPath: os.Args[1],
	}
	handlers := &types.FaaSHandlers{
		ListNamespaces:  p.listNamespaces,
		MutateNamespace: p.mutateNamespace,
		FunctionProxy:   proxy.NewHandlerFunc(config, p, false),
		FunctionLister:  p.list,
		DeployFunction:  p.deploy,
		UpdateFunction:  p.update,
		DeleteFunction:  p.remove,
		FunctionStatus:  p.status,
		ScaleFunction:   p.scale,
		Secrets:         p.changeSecrets,
		Logs:            logs.NewLogHandlerFunc(p, timeout),
		Health:          func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		Info:            info,
	}
	// The SDK would serve on all addresses: it ends at once, and leaves its routes behind.
	over, cancel := context.WithCancel(context.Background())
	cancel()
	bootstrap.Serve(over, handlers, &config)
	fmt.Printf("provider http://%s\n", listen(bootstrap.Router()))
	select {}
}

// listen serves until the program ends, and tells where.
func listen(handler http.Handler) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, handler)) }()
	return listener.Addr().String()
}

// tell is what all functions do. A path of /status/CODE is answered with that.
func tell(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	code := http.StatusOK
	fmt.Sscanf(r.URL.Path, "/status/%d", &code)
	w.Header().Set("X-Told-By", "provider_go")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{
		"method": r.Method, "uri": r.RequestURI, "body": string(body), "authorization": r.Header.Get("Authorization"),
		"callId": r.Header.Get("X-Call-Id"), "forwardedHost": r.Header.Get("X-Forwarded-Host"),
	})
}

// Resolve finds a replica for a call, and writes a line to the function's log.
func (p *provider) Resolve(name string) (url.URL, error) {
	p.Lock()
	defer p.Unlock()
	short, namespace := split(name)
	f := p.functions[short+"."+namespace]
	if f == nil || f.AvailableReplicas == 0 {
		return url.URL{}, fmt.Errorf("No endpoints available for: %s.", name)
	}
	f.lines = append(f.lines, logs.Message{
		Name: short, Namespace: namespace, Instance: "1", Timestamp: time.Now(), Text: fmt.Sprintf("call %d", len(f.lines)+1),
	})
	return p.runner, nil
}

func split(name string) (string, string) {
	if dot := strings.LastIndex(name, "."); dot >= 0 {
		return name[:dot], name[dot+1:]
	}
	return name, defaultNamespace
}

func in(namespace string) string {
	if namespace == "" {
		return defaultNamespace
	}
	return namespace
}

func query(r *http.Request) string { return in(r.URL.Query().Get("namespace")) }

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(value)
}

// read takes the body, or answers 400.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		http.Error(w, "failed to unmarshal request: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func info(w http.ResponseWriter, _ *http.Request) {
	version := &types.VersionInfo{SHA: "0123456", Release: "1.2.3"}
	answer(w, types.ProviderInfo{Name: "provider-go", Orchestration: "memory", Version: version})
}

func (p *provider) list(w http.ResponseWriter, r *http.Request) {
	p.Lock()
	defer p.Unlock()
	found := []types.FunctionStatus{}
	for _, f := range p.functions {
		if f.Namespace == query(r) {
			found = append(found, f.FunctionStatus)
		}
	}
	answer(w, found)
}

func (p *provider) deploy(w http.ResponseWriter, r *http.Request) { p.put(w, r, false) }
func (p *provider) update(w http.ResponseWriter, r *http.Request) { p.put(w, r, true) }

func (p *provider) put(w http.ResponseWriter, r *http.Request, update bool) {
	var spec types.FunctionDeployment
	if !read(w, r, &spec) {
		return
	}
	p.Lock()
	defer p.Unlock()
	namespace := in(spec.Namespace)
	key := spec.Service + "." + namespace
	if _, there := p.functions[key]; there != update {
		if update {
			http.Error(w, fmt.Sprintf("function: %s not found", key), http.StatusNotFound)
		} else {
			http.Error(w, fmt.Sprintf("unable create Deployment: %q already exists", key), http.StatusInternalServerError)
		}
		return
	}
	for _, secret := range spec.Secrets {
		if !p.secrets[namespace][secret] {
			http.Error(w, "unable to find secret: "+secret, http.StatusBadRequest)
			return
		}
	}
	p.functions[key] = &function{FunctionStatus: types.FunctionStatus{
		Name: spec.Service, Namespace: namespace, Image: spec.Image, EnvProcess: spec.EnvProcess, Secrets: spec.Secrets,
		Labels: spec.Labels, Annotations: spec.Annotations, Replicas: 1, AvailableReplicas: 1, CreatedAt: time.Now(),
	}}
	w.WriteHeader(http.StatusAccepted)
}

func (p *provider) remove(w http.ResponseWriter, r *http.Request) {
	var removal types.DeleteFunctionRequest
	if !read(w, r, &removal) {
		return
	}
	p.Lock()
	defer p.Unlock()
	// Where the namespace is differs between providers: some look into the query, some into the body.
	namespace := removal.Namespace
	if namespace == "" {
		namespace = query(r)
	}
	key := removal.FunctionName + "." + namespace
	if p.functions[key] == nil {
		http.Error(w, fmt.Sprintf("function %s not found", key), http.StatusNotFound)
		return
	}
	delete(p.functions, key)
	w.WriteHeader(http.StatusAccepted)
}

// named is the function of the path, or an answer of 404.
func (p *provider) named(w http.ResponseWriter, r *http.Request, namespace string) *function {
	name, _ := split(mux.Vars(r)["name"])
	f := p.functions[name+"."+namespace]
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
	}
	return f
}

func (p *provider) status(w http.ResponseWriter, r *http.Request) {
	p.Lock()
	defer p.Unlock()
	f := p.named(w, r, query(r))
	if f == nil {
		return
	}
	if f.asked++; f.asked >= slowness {
		f.AvailableReplicas = f.Replicas
	}
	answer(w, f.FunctionStatus)
}

func (p *provider) scale(w http.ResponseWriter, r *http.Request) {
	var wanted types.ScaleServiceRequest
	if !read(w, r, &wanted) {
		return
	}
	p.Lock()
	defer p.Unlock()
	namespace := wanted.Namespace
	if namespace == "" {
		namespace = query(r)
	}
	f := p.named(w, r, namespace)
	if f == nil {
		return
	}
	f.Replicas, f.asked = wanted.Replicas, 0
	f.AvailableReplicas = min(f.AvailableReplicas, f.Replicas)
	w.WriteHeader(http.StatusAccepted)
}

func (p *provider) changeSecrets(w http.ResponseWriter, r *http.Request) {
	p.Lock()
	defer p.Unlock()
	if r.Method == http.MethodGet {
		found := []types.Secret{}
		for name := range p.secrets[query(r)] {
			found = append(found, types.Secret{Name: name, Namespace: query(r)})
		}
		answer(w, found)
		return
	}
	var secret types.Secret
	if !read(w, r, &secret) {
		return
	}
	there := p.secrets[in(secret.Namespace)]
	if there == nil {
		there = map[string]bool{}
		p.secrets[in(secret.Namespace)] = there
	}
	switch {
	case r.Method == http.MethodPost && there[secret.Name]:
		w.WriteHeader(http.StatusConflict)
		return
	case r.Method != http.MethodPost && !there[secret.Name]:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method == http.MethodDelete:
		delete(there, secret.Name)
	default:
		there[secret.Name] = true
	}
	w.WriteHeader(http.StatusAccepted)
}

func (p *provider) listNamespaces(w http.ResponseWriter, _ *http.Request) {
	p.Lock()
	defer p.Unlock()
	names := []string{}
	for name := range p.namespaces {
		names = append(names, name)
	}
	answer(w, names)
}

func (p *provider) mutateNamespace(w http.ResponseWriter, r *http.Request) {
	p.Lock()
	defer p.Unlock()
	wanted := types.FunctionNamespace{Name: mux.Vars(r)["name"]}
	if r.Method != http.MethodGet && !read(w, r, &wanted) {
		return
	}
	there, known := p.namespaces[wanted.Name]
	switch {
	case r.Method == http.MethodPost && known:
		http.Error(w, "namespace already exists", http.StatusConflict)
	case r.Method == http.MethodPost:
		p.namespaces[wanted.Name] = wanted
		w.WriteHeader(http.StatusCreated)
	case !known:
		http.Error(w, fmt.Sprintf("namespace %s not found", wanted.Name), http.StatusNotFound)
	case r.Method == http.MethodGet:
		answer(w, there)
	case r.Method == http.MethodPut:
		p.namespaces[wanted.Name] = wanted
		w.WriteHeader(http.StatusAccepted)
	default:
		delete(p.namespaces, wanted.Name)
		w.WriteHeader(http.StatusAccepted)
	}
}

// Query tells the lines there are, and ends.
func (p *provider) Query(_ context.Context, wanted logs.Request) (<-chan logs.Message, error) {
	p.Lock()
	defer p.Unlock()
	f := p.functions[wanted.Name+"."+in(wanted.Namespace)]
	if f == nil {
		return nil, fmt.Errorf("no function %s", wanted.Name)
	}
	lines := f.lines
	if wanted.Tail > 0 && len(lines) > wanted.Tail {
		lines = lines[len(lines)-wanted.Tail:]
	}
	told := make(chan logs.Message, len(lines))
	for _, line := range lines {
		told <- line
	}
	close(told)
	return told, nil
}
