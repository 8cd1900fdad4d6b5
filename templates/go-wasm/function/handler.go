package function

// Handle answers the body of a request.
func Handle(req []byte) string {
	return "Hello! You said: " + string(req)
}
