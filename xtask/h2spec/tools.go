//go:build tools

// Package tools keeps the requirement in go.mod: `go mod tidy` drops what nothing imports.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
