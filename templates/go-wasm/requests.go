//go:build requests

// The component around Handle(http.ResponseWriter, *http.Request), which build.sh chooses: it exports
// wasi:http/incoming-handler. One instance serves one request.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
		http.Error(answer, "400 Bad Request", http.StatusBadRequest)
	} else {
		answer.head = request.Method == http.MethodHead
		handle(answer, request)
	}
	answer.finish()
}

// request is what net/http makes of it, a path that begins with two slashes included.
func request(incoming uint32) (*http.Request, error) {
	target := target(incoming)
	url, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, err
	}
	request := &http.Request{
		Method: method(incoming), URL: url, RequestURI: target, Host: authority(incoming), Header: headers(incoming),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1,
	}
	length, err := strconv.ParseInt(request.Header.Get("Content-Length"), 10, 64)
	bodiless := request.Method == http.MethodGet || request.Method == http.MethodHead
	switch {
	case err == nil:
		request.ContentLength = length
	case bodiless:
		request.ContentLength = 0
	}
	request.Body = http.NoBody
	if request.ContentLength != 0 {
		request.Body = io.NopCloser(body(incoming))
	}
	return request, nil
}

// answer sends its head with the first byte of its body, as net/http does.
type answer struct {
	out    uint32
	head   bool // to HEAD, which has no body
	header http.Header
	status int
	sent   http.Header
	body   *sink
	buffer *bufio.Writer
}

func (a *answer) Header() http.Header { return a.header }

// WriteHeader settles the head, which goes when the body begins.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status, a.sent = status, a.header.Clone()
	}
}

// begin sends the head, with the type that the body's first piece has where the handler gave none.
func (a *answer) begin(piece []byte) {
	if a.body != nil {
		return
	}
	a.WriteHeader(http.StatusOK)
	if _, given := a.sent["Content-Type"]; !given && len(piece) > 0 {
		a.sent.Set("Content-Type", http.DetectContentType(piece))
	}
	if a.head || a.status == http.StatusNotModified {
		// The host would wait for the body that it tells of.
		a.sent.Del("Content-Length")
	}
	a.body = begin(a.out, a.status, a.sent)
	a.buffer = bufio.NewWriter(a.body)
}

func (a *answer) Write(piece []byte) (int, error) {
	if a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	a.begin(piece)
	if a.head {
		return len(piece), nil
	}
	return a.buffer.Write(piece)
}

// Flush sends what has been written: http.Flusher.
func (a *answer) Flush() {
	a.begin(nil)
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
	a.status, a.header = 0, http.Header{}
	http.Error(a, "Internal Server Error", http.StatusInternalServerError)
	a.finish()
}
