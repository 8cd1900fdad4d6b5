package main

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCountsAsWc(t *testing.T) {
	for text, want := range map[string]counts{
		"":                           {0, 0, 0},
		"\n":                         {1, 0, 1},
		"no break":                   {0, 2, 8},
		" two\twords \n\nüber":       {2, 3, 18},
		"\xff\xfe x":                 {0, 2, 4},
		strings.Repeat("ab ", 1<<20): {0, 1 << 20, 3 << 20},
	} {
		got, err := count(strings.NewReader(text))
		if err != nil || got != want {
			t.Errorf("counted %v, %v in %.20q instead of %v", got, err, text, want)
		}
	}
}

func TestTellsThatABodyBrokeOff(t *testing.T) {
	broken := errors.New("broken")
	if _, err := count(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("told %v", err)
	}
}
