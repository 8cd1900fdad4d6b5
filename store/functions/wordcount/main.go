// Counts the lines, words and bytes of the body, as wc does. A command: the body is its standard input, and what it
// prints is the answer. The body has any length, since it is read as it comes.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"unicode"
)

type counts struct {
	Lines uint64 `json:"lines"`
	Words uint64 `json:"words"`
	Bytes uint64 `json:"bytes"`
}

func main() {
	found, err := count(os.Stdin)
	if err != nil {
		log.Fatalf("reading the body: %s", err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatalf("writing the answer: %s", err)
	}
}

// count reads to the end. Lines are counted by their breaks, and words by the spaces between them.
func count(text io.Reader) (counts, error) {
	reader := bufio.NewReaderSize(text, 64<<10)
	var found counts
	for within := false; ; {
		letter, size, err := reader.ReadRune()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		found.Bytes += uint64(size)
		if letter == '\n' {
			found.Lines++
		}
		space := unicode.IsSpace(letter)
		if !space && !within {
			found.Words++
		}
		within = !space
	}
}
