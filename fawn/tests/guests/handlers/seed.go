package function

import (
	"encoding/json"
	"fmt"
)

func Handle(req []byte) string {
	var data struct{ Name string }
	if err := json.Unmarshal(req, &data); err != nil {
		return fmt.Sprintf("Error parsing JSON: %s", err)
	}
	if data.Name == "" {
		panic("no name") // Fails here.
	}
	answer, _ := json.Marshal(map[string]any{"message": fmt.Sprintf("Hello %s!", data.Name), "processed": true})
	return string(answer)
}
