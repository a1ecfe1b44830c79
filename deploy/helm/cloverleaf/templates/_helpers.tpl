{{- define "cloverleaf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 53 characters, so that what is put behind it still fits into a name. */}}
{{- define "cloverleaf.fullname" -}}
{{- $name := include "cloverleaf.name" . }}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $full .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "cloverleaf.serviceAccountName" -}}
{{- $default := .Values.serviceAccount.create | ternary (include "cloverleaf.fullname" .) "default" }}
{{- default $default .Values.serviceAccount.name }}
{{- end }}

{{- define "cloverleaf.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cloverleaf.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cloverleaf.labels" -}}
{{ include "cloverleaf.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cloverleaf.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{/* NAMESPACE/NAME of the Secret with the default certificate; empty without one. */}}
{{- define "cloverleaf.defaultCertificate" -}}
{{- if .Values.tls.enabled -}}
{{ default .Release.Namespace .Values.tls.secretNamespace }}/{{ required "tls.enabled needs tls.secretName" .Values.tls.secretName }}
{{- end }}
{{- end }}

{{/* Combinations that would not work are refused here. */}}
{{- define "cloverleaf.check" -}}
{{- if not (or .Values.sources.ingress .Values.sources.pods) }}
{{- fail "sources: at least one of ingress and pods must be true" }}
{{- end }}
{{- if and .Values.config (eq .Values.mode "sidecar") }}
{{- fail "config: the controller of mode sidecar writes the whole file; use mode integrated" }}
{{- end }}
{{- range list "rules" "upstreams" "admin" }}
{{- if hasKey $.Values.config . }}
{{- fail (printf "config.%s: this is the chart's, or comes from the cluster" .) }}
{{- end }}
{{- end }}
{{- if and .Values.pods.env (not .Values.sources.pods) }}
{{- fail "pods.env: there is no pod source (sources.pods)" }}
{{- end }}
{{- range list "PORT" "SSL_PORT" }}
{{- if hasKey $.Values.pods.env . }}
{{- fail (printf "pods.env.%s: the ports are `ports.http` and `ports.https`" .) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.mode "sidecar") .Values.hostNetwork (include "cloverleaf.lowPort" .) }}
{{- fail "ports of the node below 1024 with hostNetwork: use mode integrated, or hostPorts" }}
{{- end }}
{{- end }}

{{/* Whether Ingresses get the addresses of the Service. One of type NodePort is reached by those of the nodes. */}}
{{- define "cloverleaf.publishesService" -}}
{{- if and .Values.publishService .Values.service.enabled (not .Values.publishAddresses) }}
{{- if ne .Values.service.type "NodePort" }}true{{ end }}
{{- end }}
{{- end }}

{{- define "cloverleaf.lowPort" -}}
{{- if or (lt (int .Values.ports.http) 1024) (lt (int .Values.ports.https) 1024) }}true{{ end }}
{{- end }}
