{{/* An address to listen at for what comes from outside the pod. */}}
{{- define "ferry.everywhere" -}}
{{- ternary "[::]" "0.0.0.0" .Values.ipv6 -}}
{{- end -}}

{{/* An address in YAML, where a bracket in front would begin a list. */}}
{{- define "ferry.address" -}}
{{- ternary (quote .) . (hasPrefix "[" .) -}}
{{- end -}}

{{/* Called with (list . port). */}}
{{- define "ferry.listen" -}}
{{- include "ferry.address" (printf "%s:%v" (include "ferry.everywhere" (index . 0)) (index . 1)) -}}
{{- end -}}

{{/* What a tunnel's n-th service of a peer is listened for at. Called with (list . n). */}}
{{- define "ferry.egress-port" -}}
{{- add 18001 (index . 1) -}}
{{- end -}}

{{/* The limits of an entry, in the order of the bundle. Called with the entry. */}}
{{- define "ferry.limits" -}}
{{- with .limits -}}
limits:
{{- with .sessions }}
  sessions: {{ . | int64 }}
{{- end }}
{{- with .bytes_per_second }}
  bytes_per_second: {{ ternary (quote .) . (regexMatch "^[0-9]+$" .) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "ferry.tunnel-yaml" -}}
{{- $root := . -}}
name: {{ .Values.cluster }}/{{ include "ferry.name" . }}
identity: /etc/ferry/identity/identity.key
state: /data/tunnel
keeper: /run/ferry/keeper/socket
admin: {{ include "ferry.listen" (list . 9900) }}
{{- /* Replicas lead links to each other over TCP, whatever these came by. */ -}}
{{- if or .Values.listen.tcp (include "ferry.is-led" .) }}
listen: {{ include "ferry.listen" (list . 18000) }}
{{- end }}
{{- if .Values.listen.quic }}
listen_quic: {{ include "ferry.listen" (list . 18000) }}
{{- end }}
{{- if .Values.listen.websocket }}
listen_ws: {{ include "ferry.listen" (list . 8080) }}
{{- if ne .Values.websocket.path "/ferry" }}
ws_path: {{ .Values.websocket.path }}
{{- end }}
{{- with .Values.websocket.max_life }}
ws_max_life: {{ . }}
{{- end }}
{{- end }}
{{- if include "ferry.is-led" . }}
replicas:
- {{ include "ferry.replicas-service" . }}.{{ include "ferry.namespace" . }}.svc:18000
{{- end }}
{{- if .Values.peers }}
peers:
{{- range .Values.peers }}
- name: {{ .name }}
  keys:
  {{- range .keys }}
  - {{ . }}
  {{- end }}
  {{- with .addresses }}
  addresses:
  {{- range . }}
  - {{ include "ferry.address" . }}
  {{- end }}
  {{- end }}
  {{- with omit . "name" "keys" "addresses" "ports" "pods" "limits" }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with include "ferry.limits" . }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- else }}
peers: []
{{- end }}
{{- with .Values.egress }}
egress:
{{- range $n, $egress := . }}
{{- $port := include "ferry.egress-port" (list $root $n) }}
- listen: {{ if include "ferry.is-gateway" $root }}{{ include "ferry.listen" (list $root $port) }}{{ else }}127.0.0.1:{{ $port }}{{ end }}
  peer: {{ .peer }}
  service: {{ .service }}
  {{- with include "ferry.limits" . }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.ingress }}
ingress:
{{- range . }}
- service: {{ .service }}
  forward: {{ include "ferry.address" .forward }}
  allow:
  {{- range .allow }}
  - {{ . }}
  {{- end }}
  {{- with .proxy_protocol }}
  proxy_protocol: {{ . }}
  {{- end }}
  {{- with include "ferry.limits" . }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.tunnel }}
rotation:
  every: {{ .rotation.every }}
  bytes: {{ .rotation.bytes }}
  max_per_second: {{ .rotation.max_per_second | int64 }}
resume:
  window: {{ .resume.window }}
{{- if ne .resume.buffer "auto" }}
  buffer: {{ .resume.buffer }}
{{- end }}
liveness: {{ .liveness }}
open_timeout: {{ .open_timeout }}
drain: {{ .drain }}
limits:
  sessions: {{ .limits.sessions | int64 }}
  memory: {{ .limits.memory }}
  handshakes: {{ .limits.handshakes | int64 }}
warm_links:
  own: {{ .warm_links.own | int64 }}
  offered: {{ .warm_links.offered | int64 }}
{{- with .congestion }}
congestion: {{ . }}
{{- end }}
{{- end }}
{{ end -}}
