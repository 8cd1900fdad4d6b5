//go:build requests

// The component around Handle(http.ResponseWriter, *http.Request), which build.sh chooses: it exports
// wasi:http/incoming-handler. One instance serves one request.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"

	"handler/function"
)

var handle func(http.ResponseWriter, *http.Request) = function.Handle

func main() {}

//go:wasmexport wasi:http/incoming-handler@0.2.10#handle
func incomingHandle(incoming, out uint32) {
	answer := &answer{out: out, header: http.Header{}}
	defer func() {
		if reason := recover(); reason != nil {
			answer.failed(reason)
		}
	}()
	request, err := request(incoming)
	if err != nil {
		panic(err)
	}
	handle(answer, request)
	answer.finish()
}

func request(incoming uint32) (*http.Request, error) {
	request, err := http.NewRequest(method(incoming), target(incoming), body(incoming))
	if err != nil {
		return nil, err
	}
	request.RequestURI = request.URL.RequestURI()
	request.Host = authority(incoming)
	request.Header = headers(incoming)
	request.ContentLength = -1
	if length, err := strconv.ParseInt(request.Header.Get("Content-Length"), 10, 64); err == nil {
		request.ContentLength = length
	}
	return request, nil
}

// answer sends its head with the first byte of its body, as net/http does.
type answer struct {
	out    uint32
	header http.Header
	body   *sink
	buffer *bufio.Writer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.body != nil || status < 200 {
		return
	}
	a.body = begin(a.out, status, a.header)
	a.buffer = bufio.NewWriter(a.body)
}

func (a *answer) Write(piece []byte) (int, error) {
	if a.body == nil {
		if a.header.Get("Content-Type") == "" {
			a.header.Set("Content-Type", http.DetectContentType(piece))
		}
		a.WriteHeader(http.StatusOK)
	}
	return a.buffer.Write(piece)
}

// Flush sends what has been written: http.Flusher.
func (a *answer) Flush() {
	a.WriteHeader(http.StatusOK)
	a.buffer.Flush()
}

func (a *answer) finish() {
	a.Flush()
	a.body.finish()
}

// failed reports a panic with its stack. What has not begun to answer, answers 500; what has, breaks off.
func (a *answer) failed(reason any) {
	fmt.Fprintf(os.Stderr, "panic: %v\n%s", reason, debug.Stack())
	if a.body != nil {
		os.Exit(2)
	}
	a.header = http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	a.WriteHeader(http.StatusInternalServerError)
	a.Write([]byte("Internal Server Error\n"))
	a.finish()
}
