//go:build !requests

// The program around Handle([]byte) string: as with OpenFaaS, a line break ends the answer.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"handler/function"
)

var handle func([]byte) string = function.Handle

func main() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatalf("reading the request's body: %s", err)
	}
	if _, err := fmt.Println(handle(body)); err != nil {
		log.Fatalf("writing the answer: %s", err)
	}
}
