package function

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"strconv"
	"sync"
)

func Handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		io.Copy(w, r.Body)
	case "/head":
		w.Header().Set("Content-Length", "5")
		w.WriteHeader(http.StatusOK)
	case "/fail":
		var nothing map[string]int
		nothing["at all"] = 1 // Fails here.
	case "/random":
		fmt.Fprint(w, rand.Float64())
	case "/secret":
		secret, err := os.ReadFile("/var/openfaas/secrets/token")
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "%d letters", len(secret))
	case "/status":
		status, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil {
			panic(err)
		}
		w.WriteHeader(status)
	case "/goroutines":
		goroutines(w, r)
	default:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		w.Header().Set("X-Made-By", "me")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]string{
			"method":   r.Method,
			"path":     r.URL.Path,
			"name":     r.URL.Query().Get("name"),
			"thing":    r.Header.Get("X-Thing"),
			"greeting": os.Getenv("GREETING"),
			"body":     string(body),
		})
	}
}

// goroutines writes lines of each of ten while it reads the body, and then how much of that was as it should be.
func goroutines(w http.ResponseWriter, r *http.Request) {
	var writing sync.Mutex
	done := make(chan bool)
	for range 10 {
		go func() {
			for line := range 100 {
				writing.Lock()
				fmt.Fprintf(w, "%0999d\n", line)
				writing.Unlock()
			}
			done <- true
		}()
	}
	body, err := io.ReadAll(r.Body)
	for range 10 {
		<-done
	}
	fmt.Fprintln(w, bytes.Count(body, []byte("a")), err)
}
