{{/* What all containers have in common. */}}
{{- define "ferry.container" -}}
image: {{ .Values.image | quote }}
imagePullPolicy: IfNotPresent
command: [/usr/local/bin/ferry]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Local matters only: a peer that is away keeps no container from starting or from being ready. */}}
{{- define "ferry.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /livez, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}

{{- define "ferry.keeper" -}}
{{- $memory := include "ferry.bytes" (.Values.tunnel.limits.memory | toString) | int64 -}}
name: keeper
{{ include "ferry.container" . }}
restartPolicy: Always
args:
  - keeper
  - --socket
  - /run/ferry/keeper/socket
  - --grace
  - {{ include "ferry.seconds" .Values.tunnel.resume.window }}s
  - --alive-timeout
  - 60s
volumeMounts:
  - {name: keeper, mountPath: /run/ferry}
resources:
{{- if .Values.resources.keeper }}
  {{- toYaml .Values.resources.keeper | nindent 2 }}
{{- else }}
  requests: {cpu: 10m, memory: 16Mi}
  # What a tunnel has left in memory counts for the pod, whose limit is the sum of its containers'.
  limits: {cpu: 500m, memory: {{ include "ferry.quantity" (add $memory 67108864) }}}
{{- end }}
{{- end -}}

{{- define "ferry.tunnel" -}}
{{- $memory := include "ferry.bytes" (.Values.tunnel.limits.memory | toString) | int64 -}}
name: tunnel
{{ include "ferry.container" . }}
args:
  - tunnel
  - --config
  - /etc/ferry/config/tunnel.yaml
  {{- if not (include "ferry.is-gateway" .) }}
  - --leave-sessions
  {{- end }}
{{- with .Values.traces.endpoint }}
env:
  - {name: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, value: {{ printf "%s/v1/traces" (trimSuffix "/" .) | quote }}}
{{- end }}
ports:
  {{- if .Values.listen.tcp }}
  - {name: tunnel, containerPort: 18000}
  {{- end }}
  {{- if .Values.listen.quic }}
  - {name: tunnel-quic, containerPort: 18000, protocol: UDP}
  {{- end }}
  {{- if .Values.listen.websocket }}
  - {name: tunnel-ws, containerPort: 8080}
  {{- end }}
  - {name: admin, containerPort: 9900}
{{ include "ferry.probes" 9900 }}
volumeMounts:
  - {name: tunnel, mountPath: /etc/ferry/config, readOnly: true}
  - {name: tunnel-identity, mountPath: /etc/ferry/identity, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: keeper, mountPath: /run/ferry}
  {{- if include "ferry.addresses-config-map" . }}
  - {name: tunnel-addresses, mountPath: /etc/ferry/addresses, readOnly: true}
  {{- end }}
resources:
{{- if .Values.resources.tunnel }}
  {{- toYaml .Values.resources.tunnel | nindent 2 }}
{{- else }}
  requests: {cpu: 50m, memory: 64Mi}
  limits: {cpu: "2", memory: {{ include "ferry.quantity" (add $memory (max 268435456 (div $memory 2))) }}}
{{- end }}
{{- end -}}

{{- define "ferry.web-app" -}}
{{- $hooks := or .Values.web_app.hooks .Values.web_app.hooks_config_map -}}
name: web-app
{{ include "ferry.container" . }}
args:
  - {{ trimPrefix "ws-" .Values.template }}
  {{- if .Values.web_app.expose }}
  - --token-file
  - /etc/ferry/token/token
  {{- end }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - {name: CLUSTER_NAME, value: {{ .Values.cluster | quote }}}
  - {name: FERRY_LISTEN, value: "{{ include "ferry.everywhere" . }}:8000"}
  - {name: FERRY_DATA, value: /data/web-app}
  {{- if $hooks }}
  - {name: FERRY_HOOKS, value: /etc/ferry/hooks/app.py}
  {{- end }}
  - {name: PYTHONPATH, value: /app}
  - {name: FERRY_TUNNEL_USER, value: "65532"}
  {{- if not .Values.web_app.expose }}
  # The network policy keeps others out.
  - {name: FERRY_NO_TOKEN, value: "true"}
  {{- end }}
  {{- if eq .Values.template "ws-initiator" }}
  - {name: FERRY_PEER, value: "ws://127.0.0.1:18001/ws"}
  - {name: FERRY_AUTO_TRIGGER, value: {{ .Values.web_app.auto_trigger | int64 | quote }}}
  {{- end }}
  {{- with .Values.traces.endpoint }}
  - {name: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, value: {{ printf "%s/v1/traces" (trimSuffix "/" .) | quote }}}
  {{- end }}
ports:
  - {name: http, containerPort: 8000}
{{ include "ferry.probes" 8000 }}
volumeMounts:
  {{- if $hooks }}
  - {name: hooks, mountPath: /etc/ferry/hooks, readOnly: true}
  {{- end }}
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.web_app.expose }}
  - {name: web-app-token, mountPath: /etc/ferry/token, readOnly: true}
  {{- end }}
resources:
{{- if .Values.resources.web_app }}
  {{- toYaml .Values.resources.web_app | nindent 2 }}
{{- else }}
  requests: {cpu: 50m, memory: 64Mi}
  limits: {cpu: "1", memory: 256Mi}
{{- end }}
{{- end -}}
