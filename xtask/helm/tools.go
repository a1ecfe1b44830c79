//go:build tools

// Package tools keeps the requirement in go.mod: `go mod tidy` drops what nothing imports.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
