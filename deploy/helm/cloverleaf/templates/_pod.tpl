{{/* Flags for whoever looks at the cluster: the gateway, or the controller beside it. */}}
{{- define "cloverleaf.clusterArgs" -}}
{{- $sources := list }}
{{- if .Values.sources.ingress }}{{ $sources = append $sources "ingress" }}{{ end }}
{{- if .Values.sources.pods }}{{ $sources = append $sources "pods" }}{{ end }}
- --kubernetes-sources={{ join "," $sources }}
{{- $controllers := prepend .Values.extraControllerNames .Values.ingressClass.controller | uniq }}
{{- if ne (toJson $controllers) (toJson (list "cloverleaf/gateway")) }}
{{- range $controllers }}
- {{ printf "--controller-name=%s" . | quote }}
{{- end }}
{{- end }}
{{- range .Values.watchNamespaces }}
- --watch-namespace={{ . }}
{{- end }}
{{- with include "cloverleaf.defaultCertificate" . }}
- --default-certificate={{ . }}
{{- end }}
- --lease-name={{ include "cloverleaf.fullname" . }}
{{- if .Values.publishAddresses }}
{{- range .Values.publishAddresses }}
- {{ printf "--publish-address=%s" . | quote }}
{{- end }}
{{- else if include "cloverleaf.publishesService" . }}
- --publish-service={{ .Release.Namespace }}/{{ include "cloverleaf.fullname" . }}
{{- end }}
{{- end }}

{{/* What whoever looks at the cluster is told about itself. */}}
{{- define "cloverleaf.clusterEnv" -}}
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
- name: HOST_IP
  valueFrom: { fieldRef: { fieldPath: status.hostIP } }
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
# Empty where the cluster does not copy the label from the node.
- name: NODE_ZONE
  valueFrom: { fieldRef: { fieldPath: "metadata.labels['topology.kubernetes.io/zone']" } }
{{- with .Values.debug }}
- name: DEBUG
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.pods.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "cloverleaf.securityContext" -}}
{{- $context := deepCopy .Values.securityContext }}
{{- if and .Values.hostNetwork (include "cloverleaf.lowPort" .) }}
{{- /* A port of the node below 1024. The right does not pass to another user without file capabilities, so the
       user is root here, with this one right and no other. */}}
{{- $capabilities := default dict $context.capabilities }}
{{- $_ := set $capabilities "add" (append (default list $capabilities.add) "NET_BIND_SERVICE" | uniq) }}
{{- $_ := set $context "capabilities" $capabilities }}
{{- $_ := set $context "runAsNonRoot" false }}
{{- $_ := set $context "runAsUser" 0 }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "cloverleaf.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext }}
{{- if and (not .Values.hostNetwork) (include "cloverleaf.lowPort" .) }}
{{- /* In a network of its own the pod may let everybody bind low ports: no capability. */}}
{{- $sysctl := dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "0" }}
{{- $_ := set $context "sysctls" (append (default list $context.sysctls) $sysctl) }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- define "cloverleaf.probes" -}}
livenessProbe:
  httpGet: { path: /healthz, port: {{ .port }} }
  {{- toYaml .root.Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: { path: /readyz, port: {{ .port }} }
  {{- toYaml .root.Values.readinessProbe | nindent 2 }}
{{- end }}

{{- define "cloverleaf.gateway" -}}
{{- $sidecar := eq .Values.mode "sidecar" }}
name: gateway
image: {{ include "cloverleaf.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - gateway
  - --admin-address=[::]:{{ .Values.ports.admin }}
  {{- if $sidecar }}
  - --config=/run/cloverleaf/cloverleaf.yaml
  - --wait-for-config
  {{- else }}
  - --kubernetes
  {{- include "cloverleaf.clusterArgs" . | trim | nindent 2 }}
  {{- if .Values.config }}
  - --config=/etc/cloverleaf/cloverleaf.yaml
  {{- end }}
  {{- if not (hasKey .Values.config "listeners") }}
  - --port={{ .Values.ports.http }}
  - --https-port={{ .Values.ports.https }}
  {{- end }}
  {{- if .Values.state.enabled }}
  - --kubernetes-state=/var/lib/cloverleaf/objects.json
  {{- end }}
  {{- end }}
  {{- with .Values.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- if $sidecar }}
  - name: DEBUG
    value: {{ .Values.debug | quote }}
  {{- else }}
  {{- include "cloverleaf.clusterEnv" . | nindent 2 }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: http
    containerPort: {{ .Values.ports.http }}
    {{- if .Values.hostNetwork }}
    hostPort: {{ .Values.ports.http }}
    {{- else if and (eq .Values.kind "DaemonSet") .Values.hostPorts.http }}
    hostPort: {{ .Values.hostPorts.http }}
    {{- end }}
  - name: https
    containerPort: {{ .Values.ports.https }}
    {{- if .Values.hostNetwork }}
    hostPort: {{ .Values.ports.https }}
    {{- else if and (eq .Values.kind "DaemonSet") .Values.hostPorts.https }}
    hostPort: {{ .Values.hostPorts.https }}
    {{- end }}
  - name: admin
    containerPort: {{ .Values.ports.admin }}
    {{- if .Values.hostNetwork }}
    hostPort: {{ .Values.ports.admin }}
    {{- end }}
{{ include "cloverleaf.probes" (dict "root" . "port" "admin") }}
securityContext:
  {{- include "cloverleaf.securityContext" . | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- $mounts := list }}
{{- if $sidecar }}
{{- $mounts = append $mounts (dict "name" "run" "mountPath" "/run/cloverleaf" "readOnly" true) }}
{{- else }}
{{- if .Values.config }}
{{- $mounts = append $mounts (dict "name" "config" "mountPath" "/etc/cloverleaf" "readOnly" true) }}
{{- end }}
{{- if .Values.state.enabled }}
{{- $mounts = append $mounts (dict "name" "state" "mountPath" "/var/lib/cloverleaf") }}
{{- end }}
{{- end }}
{{- with concat $mounts .Values.extraVolumeMounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "cloverleaf.controller" -}}
name: controller
image: {{ include "cloverleaf.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - controller
  - --write=/run/cloverleaf/cloverleaf.yaml
  - --admin-address=[::]:{{ add1 .Values.ports.admin }}
  {{- include "cloverleaf.clusterArgs" . | trim | nindent 2 }}
  {{- with .Values.controllerExtraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- /* The ports of the gateway, which the file names. */}}
  - name: PORT
    value: {{ .Values.ports.http | quote }}
  - name: HTTPS_PORT
    value: {{ .Values.ports.https | quote }}
  {{- include "cloverleaf.clusterEnv" . | nindent 2 }}
  {{- with .Values.controllerExtraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: controller
    containerPort: {{ add1 .Values.ports.admin }}
    {{- if .Values.hostNetwork }}
    hostPort: {{ add1 .Values.ports.admin }}
    {{- end }}
livenessProbe:
  httpGet: { path: /healthz, port: controller }
  {{- toYaml .Values.livenessProbe | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.controllerResources | nindent 2 }}
volumeMounts:
  - { name: run, mountPath: /run/cloverleaf }
  - { name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true }
{{- end }}

{{- define "cloverleaf.volumes" -}}
{{- if eq .Values.mode "sidecar" }}
# The written file with its certificates: in memory, shared by the two containers.
- name: run
  emptyDir: { medium: Memory }
# The token is the controller's alone.
- name: account
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: { path: token, expirationSeconds: 3607 }
      - configMap: { name: kube-root-ca.crt, items: [{ key: ca.crt, path: ca.crt }] }
      - downwardAPI:
          items: [{ path: namespace, fieldRef: { apiVersion: v1, fieldPath: metadata.namespace } }]
{{- else }}
{{- if .Values.config }}
- name: config
  configMap: { name: {{ include "cloverleaf.fullname" . }} }
{{- end }}
{{- if .Values.state.enabled }}
- name: state
  {{- toYaml .Values.state.volume | nindent 2 }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Spread over nodes and zones; an entry without a labelSelector means the pods of this release. */}}
{{- define "cloverleaf.topologySpread" -}}
{{- $own := dict "matchLabels" (include "cloverleaf.selectorLabels" . | fromYaml) }}
{{- if .Values.topologySpreadConstraints }}
{{- range .Values.topologySpreadConstraints }}
- {{ toYaml (merge (deepCopy .) (dict "labelSelector" $own)) | nindent 2 | trim }}
{{- end }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    {{- toYaml $own | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cloverleaf.podTemplate" -}}
metadata:
  labels:
    {{- include "cloverleaf.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "cloverleaf.serviceAccountName" . }}
  automountServiceAccountToken: {{ ne .Values.mode "sidecar" }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "cloverleaf.podSecurityContext" . | nindent 4 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: {{ default "ClusterFirstWithHostNet" .Values.dnsPolicy }}
  {{- else if .Values.dnsPolicy }}
  dnsPolicy: {{ .Values.dnsPolicy }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    {{- if eq .Values.mode "sidecar" }}
    - {{ include "cloverleaf.controller" . | nindent 6 | trim }}
    {{- end }}
    - {{ include "cloverleaf.gateway" . | trim | nindent 6 | trim }}
  {{- with include "cloverleaf.volumes" . | trim }}
  volumes:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  topologySpreadConstraints:
    {{- include "cloverleaf.topologySpread" . | trim | nindent 4 }}
  {{- end }}
{{- end }}
