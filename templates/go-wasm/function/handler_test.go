package function

import "testing"

func TestGreets(t *testing.T) {
	if answer := Handle([]byte("some text")); answer != "Hello! You said: some text" {
		t.Errorf("answered %q", answer)
	}
}
