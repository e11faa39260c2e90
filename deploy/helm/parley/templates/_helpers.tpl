{{- define "parley.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "parley.selector" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "parley.labels" -}}
{{ include "parley.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "parley.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}

{{/* Settings on the command line, which go before those of the file: one `--set` each. */}}
{{- define "parley.settings" -}}
server.host: "0.0.0.0"
server.port: "8000"
server.drain_s: {{ .Values.server.drainSeconds | quote }}
server.trusted_proxies: {{ .Values.server.trustedProxies | toJson | quote }}
server.max_connections_per_address: {{ .Values.server.maxConnectionsPerAddress | quote }}
server.allowed_origins: {{ .Values.server.allowedOrigins | toJson | quote }}
server.allowed_hosts: {{ .Values.server.allowedHosts | toJson | quote }}
webrtc.enabled: {{ .Values.webrtc.enabled | quote }}
{{- if .Values.webrtc.enabled }}
webrtc.port: "8000"
{{- end }}
{{- /* Of the only model, or of each that is named. */}}
{{- range $name := default (list "") .Values.model.names }}
{{- $engine := $name | empty | ternary "engine" (printf "models.%s.engine" $name) }}
{{ $engine }}.max_sessions: {{ $.Values.model.maxSessions | quote }}
{{ $engine }}.loading_s: {{ $.Values.loadingSeconds | quote }}
{{- with $.Values.model.quantisation }}
{{ $engine }}.linears: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}
