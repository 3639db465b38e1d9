package secrets

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// hidden stands for a secret wherever one is printed.
const hidden = "***"

// Value is a secret. However it is printed, alone or within something else, it
// shows nothing of itself. The zero Value is empty.
type Value struct {
	// A pointer, because fmt prints the fields of a value it reaches through an
	// unexported field without asking the value's methods.
	text *string
}

// NewValue makes a secret of a text.
func NewValue(text string) Value { return Value{&text} }

// Reveal returns the secret itself.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// String hides the secret.
func (Value) String() string { return hidden }

// GoString hides the secret.
func (Value) GoString() string { return hidden }

// Format hides the secret under every verb, those for numbers included.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue hides the secret in logs.
func (Value) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON hides the secret.
func (Value) MarshalJSON() ([]byte, error) { return json.Marshal(hidden) }

// MarshalYAML hides the secret.
func (Value) MarshalYAML() (any, error) { return hidden, nil }
