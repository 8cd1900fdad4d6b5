//go:build requests

// Calls of WASI 0.2 as the Component Model's canonical ABI has them
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md).
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"unsafe"
)

// What a call of the host hands over lies in the arena until the next call. The adapter of preview 1 keeps its own
// state and stack, 128 KiB, at the start; it asks for these before Go's runtime is ready, so that cabi_realloc must not
// need the runtime.
// Go has one thread here, but goroutines may change wherever memory is allocated: hence the lock.
var (
	arena  [32 * 1024]uint64
	used   uintptr
	kept   uintptr
	result [8]uint64
	calls  sync.Mutex
)

//go:wasmexport cabi_realloc
//go:nosplit
func cabiRealloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	at := (used + uintptr(align) - 1) &^ (uintptr(align) - 1)
	if at+uintptr(size) > unsafe.Sizeof(arena) {
		panic("the host handed over more than fits")
	}
	used = at + uintptr(size)
	return unsafe.Add(unsafe.Pointer(&arena), at)
}

func init() { kept = used }

// begins a call, which leaves its result in the place that this gives, until ends.
func begins() unsafe.Pointer {
	calls.Lock()
	used = kept
	return unsafe.Pointer(&result)
}

func ends() { calls.Unlock() }

func word(at unsafe.Pointer, offset uintptr) uint32 { return *(*uint32)(unsafe.Add(at, offset)) }

func tag(at unsafe.Pointer, offset uintptr) uint8 { return *(*uint8)(unsafe.Add(at, offset)) }

// text copies a string or a list of bytes, of which the place has address and length.
func text(at unsafe.Pointer, offset uintptr) string {
	first := (*byte)(unsafe.Pointer(uintptr(word(at, offset))))
	return string(unsafe.Slice(first, word(at, offset+4)))
}

// owned is the handle in a result, or a panic that says which call failed.
func owned(result unsafe.Pointer, call string) uint32 {
	if tag(result, 0) != 0 {
		panic(call + " failed")
	}
	return word(result, 4)
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.method
func wasiMethod(self uint32, result unsafe.Pointer)

func method(incoming uint32) string {
	names := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
	result := begins()
	defer ends()
	wasiMethod(incoming, result)
	if tag := tag(result, 0); int(tag) < len(names) {
		return names[tag]
	}
	return text(result, 4)
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.path-with-query
func wasiPathWithQuery(self uint32, result unsafe.Pointer)

func target(incoming uint32) string {
	result := begins()
	defer ends()
	wasiPathWithQuery(incoming, result)
	return option(result, "/")
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.authority
func wasiAuthority(self uint32, result unsafe.Pointer)

func authority(incoming uint32) string {
	result := begins()
	defer ends()
	wasiAuthority(incoming, result)
	return option(result, "")
}

func option(result unsafe.Pointer, none string) string {
	if tag(result, 0) == 0 {
		return none
	}
	return text(result, 4)
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.headers
func wasiHeaders(self uint32) uint32

//go:wasmimport wasi:http/types@0.2.10 [method]fields.entries
func wasiEntries(self uint32, result unsafe.Pointer)

func headers(incoming uint32) http.Header {
	fields := wasiHeaders(incoming)
	result := begins()
	defer ends()
	wasiEntries(fields, result)
	header := http.Header{}
	entries := unsafe.Pointer(uintptr(word(result, 0)))
	for at := uintptr(0); at < uintptr(word(result, 4)); at++ {
		header.Add(text(entries, 16*at), text(entries, 16*at+8))
	}
	return header
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.consume
func wasiConsume(self uint32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-body.stream
func wasiBodyStream(self uint32, result unsafe.Pointer)

//go:wasmimport wasi:io/streams@0.2.10 [method]input-stream.blocking-read
func wasiBlockingRead(self uint32, length uint64, result unsafe.Pointer)

// source is a request's body.
type source struct{ stream uint32 }

func body(incoming uint32) io.Reader {
	result := begins()
	defer ends()
	wasiConsume(incoming, result)
	incomingBody := owned(result, "reading the request's body")
	wasiBodyStream(incomingBody, result)
	return source{owned(result, "reading the request's body")}
}

func (s source) Read(piece []byte) (int, error) {
	result := begins()
	defer ends()
	wasiBlockingRead(s.stream, uint64(min(len(piece), 64*1024)), result)
	if tag(result, 0) == 0 {
		return copy(piece, text(result, 4)), nil
	}
	return 0, ended(result, io.EOF)
}

// ended is why a stream gives or takes no more.
func ended(result unsafe.Pointer, closed error) error {
	if tag(result, 4) == 1 {
		return closed
	}
	return errors.New("the connection broke off")
}

//go:wasmimport wasi:http/types@0.2.10 [constructor]fields
func wasiNewFields() uint32

//go:wasmimport wasi:http/types@0.2.10 [method]fields.append
func wasiAppend(self uint32, name unsafe.Pointer, nameLength uint32, value unsafe.Pointer, valueLength uint32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.10 [constructor]outgoing-response
func wasiNewResponse(fields uint32) uint32

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-response.set-status-code
func wasiSetStatusCode(self, status uint32) uint32

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-response.body
func wasiResponseBody(self uint32, result unsafe.Pointer)

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-body.write
func wasiBodyWrite(self uint32, result unsafe.Pointer)

// The parameters from the fourth on are those of an error, which is never sent.
//
//go:wasmimport wasi:http/types@0.2.10 [static]response-outparam.set
func wasiSetResponse(out, isError, response, e1 uint32, e2 uint64, e3, e4, e5, e6 uint32)

// sink is an answer's body.
type sink struct{ body, stream uint32 }

// begin sends the head of an answer.
func begin(out uint32, status int, header http.Header) *sink {
	result := begins()
	defer ends()
	fields := wasiNewFields()
	for name, values := range header {
		for _, value := range values {
			wasiAppend(fields, unsafe.Pointer(unsafe.StringData(name)), uint32(len(name)),
				unsafe.Pointer(unsafe.StringData(value)), uint32(len(value)), result)
			if tag(result, 0) != 0 {
				panic(fmt.Sprintf("the header %q with the value %q cannot be sent", name, value))
			}
		}
	}
	response := wasiNewResponse(fields)
	if wasiSetStatusCode(response, uint32(status)) != 0 {
		panic(fmt.Sprintf("the status %d cannot be sent", status))
	}
	wasiResponseBody(response, result)
	body := owned(result, "opening the answer's body")
	wasiBodyWrite(body, result)
	stream := owned(result, "opening the answer's body")
	wasiSetResponse(out, 0, response, 0, 0, 0, 0, 0, 0)
	return &sink{body, stream}
}

//go:wasmimport wasi:io/streams@0.2.10 [method]output-stream.blocking-write-and-flush
func wasiBlockingWrite(self uint32, bytes unsafe.Pointer, length uint32, result unsafe.Pointer)

// Write sends at most 4 KiB at a time, which is what this call takes.
func (s *sink) Write(all []byte) (int, error) {
	result := begins()
	defer ends()
	for rest := all; len(rest) > 0; {
		piece := rest[:min(len(rest), 4096)]
		wasiBlockingWrite(s.stream, unsafe.Pointer(unsafe.SliceData(piece)), uint32(len(piece)), result)
		if tag(result, 0) != 0 {
			return len(all) - len(rest), ended(result, errors.New("the caller went away"))
		}
		rest = rest[len(piece):]
	}
	return len(all), nil
}

//go:wasmimport wasi:io/streams@0.2.10 [resource-drop]output-stream
func wasiDropOutputStream(self uint32)

//go:wasmimport wasi:http/types@0.2.10 [static]outgoing-body.finish
func wasiFinish(body, hasTrailers, trailers uint32, result unsafe.Pointer)

func (s *sink) finish() {
	result := begins()
	defer ends()
	wasiDropOutputStream(s.stream)
	wasiFinish(s.body, 0, 0, result)
}
