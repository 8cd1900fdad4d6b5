// A program of many small commands, named by its first word as in a multi-call binary:
// what the OpenFaaS images do with fprocess, as one WASI command.
package main

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
)

var commands = map[string]func(args []string) error{
	"args":      args,
	"cat":       cat,
	"env":       env,
	"exit":      exit,
	"sha512sum": sha512sum,
	"upper":     upper,
}

func main() {
	words := append([]string{path.Base(os.Args[0])}, os.Args[1:]...)
	if commands[words[0]] == nil {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{"upper"}
	}
	command := commands[words[0]]
	if command == nil {
		fail(fmt.Errorf("%s: no such command", words[0]))
	}
	if err := command(words[1:]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func args(args []string) error {
	_, err := fmt.Printf("%q\n", args)
	return err
}

func env([]string) error {
	for _, variable := range os.Environ() {
		if _, err := fmt.Println(variable); err != nil {
			return err
		}
	}
	return nil
}

func cat(files []string) error {
	if len(files) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(content); err != nil {
			return err
		}
	}
	return nil
}

func sha512sum([]string) error {
	hash := sha512.New()
	if _, err := io.Copy(hash, os.Stdin); err != nil {
		return err
	}
	_, err := fmt.Printf("%x  -\n", hash.Sum(nil))
	return err
}

func upper([]string) error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(bytes.ToUpper(input))
	return err
}

// exit says on both streams how it is about to end.
func exit(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fmt.Printf("exiting with %d\n", code)
	fmt.Fprintln(os.Stderr, "this went to stderr")
	os.Exit(code)
	return nil
}
