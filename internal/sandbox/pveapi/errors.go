package pveapi

import (
	"errors"
	"fmt"
	"net/http"
)

// apiError is an answer other than 200. Its message travels in the HTTP reason
// phrase, where Proxmox clients look for it.
type apiError struct {
	code   int
	msg    string
	fields map[string]string // what is wrong with which parameter
}

func (e *apiError) Error() string { return e.msg }

// failed is what Proxmox's "die" becomes: status 500 with the message.
func failed(format string, args ...any) error {
	return &apiError{code: http.StatusInternalServerError, msg: fmt.Sprintf(format, args...)}
}

// denied is an answer to a caller whose credentials are no good.
func denied(format string, args ...any) error {
	return &apiError{code: http.StatusUnauthorized, msg: fmt.Sprintf(format, args...)}
}

// forbidden says which privilege the caller lacks on which path.
func forbidden(path, privilege string) error {
	return &apiError{code: http.StatusForbidden, msg: fmt.Sprintf("Permission check failed (%s, %s)", path, privilege)}
}

// badParam refuses one parameter, as Proxmox's parameter verification does.
func badParam(name, format string, args ...any) error {
	return badParams(map[string]string{name: fmt.Sprintf(format, args...)})
}

func badParams(fields map[string]string) error {
	return &apiError{code: http.StatusBadRequest, msg: "Parameter verification failed.", fields: fields}
}

// asAPIError gives any error the form it is answered in.
func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	return &apiError{code: http.StatusInternalServerError, msg: err.Error()}
}
