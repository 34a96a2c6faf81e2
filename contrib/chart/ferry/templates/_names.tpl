{{/* The pod: its Deployment, and what it is known by. */}}
{{- define "ferry.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end -}}

{{- define "ferry.namespace" -}}
{{- .Values.namespace.name | default .Release.Namespace -}}
{{- end -}}

{{/* The name of an object of ours. In a namespace of our own nothing is in its way. Called with (list . "data"). */}}
{{- define "ferry.object" -}}
{{- $root := index . 0 -}}
{{- if not $root.Values.namespace.own }}{{ include "ferry.name" $root }}-{{ end }}{{ index . 1 -}}
{{- end -}}

{{- define "ferry.selector" -}}
app.kubernetes.io/name: {{ include "ferry.name" . | quote }}
app.kubernetes.io/part-of: {{ .Values.network | quote }}
{{- end -}}

{{- define "ferry.labels" -}}
{{ include "ferry.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The metadata of an object. Called with (list . name). */}}
{{- define "ferry.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 1 | quote }}
namespace: {{ include "ferry.namespace" $root | quote }}
labels:
  {{- include "ferry.labels" $root | nindent 2 }}
{{- end -}}

{{/* "yes" for a gateway, nothing for a web-app. */}}
{{- define "ferry.is-gateway" -}}
{{- if eq .Values.template "gateway" }}yes{{ end -}}
{{- end -}}

{{- define "ferry.identity-secret" -}}
{{- .Values.identity.secret | default (include "ferry.object" (list . "tunnel-identity")) -}}
{{- end -}}

{{- define "ferry.token-secret" -}}
{{- .Values.web_app.token.secret | default (include "ferry.object" (list . "web-app-token")) -}}
{{- end -}}

{{- define "ferry.hooks-config-map" -}}
{{- .Values.web_app.hooks_config_map | default (include "ferry.object" (list . "hooks")) -}}
{{- end -}}

{{/* The ConfigMap of addresses, and nothing if there is none. */}}
{{- define "ferry.addresses-config-map" -}}
{{- if .Values.addresses.config_map -}}
{{- .Values.addresses.config_map -}}
{{- else if .Values.addresses.files -}}
{{- include "ferry.object" (list . "tunnel-addresses") -}}
{{- end -}}
{{- end -}}

{{/* What is in front of WebSockets: ingress, http_route, or nothing. */}}
{{- define "ferry.front" -}}
{{- if .Values.websocket.host -}}
{{- ternary "http_route" "ingress" (ne .Values.websocket.http_route.gateway "") -}}
{{- end -}}
{{- end -}}

{{/* "yes" if links come to this pod: through its Service, or what is in front of its WebSockets. */}}
{{- define "ferry.is-dialled" -}}
{{- if or (ne .Values.service.type "none") (include "ferry.front" .) }}yes{{ end -}}
{{- end -}}
