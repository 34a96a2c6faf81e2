{{- define "ferry.of-namespace" -}}
{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}}
{{- end -}}

{{/* Who gets in. */}}
{{- define "ferry.policy-in" -}}
{{- $root := . -}}
{{- $gateway := include "ferry.is-gateway" . -}}
{{- if include "ferry.is-dialled" . }}
# From anywhere: behind a load balancer, the caller's address need not be the caller's.
- ports:
    {{- if .Values.listen.tcp }}
    - {port: 18000, protocol: TCP}
    {{- end }}
    {{- if .Values.listen.quic }}
    - {port: 18000, protocol: UDP}
    {{- end }}
    {{- if .Values.listen.websocket }}
    - {port: 8080, protocol: TCP}
    {{- end }}
{{- end }}
{{- with .Values.metrics.namespace }}
- from: [{{ include "ferry.of-namespace" . }}]
  ports:
    - {port: 9900, protocol: TCP}
    {{- if not $gateway }}
    - {port: 8000, protocol: TCP}
    {{- end }}
{{- end }}
{{- if not $gateway }}
{{- with .Values.web_app.expose }}
- from: [{{ include "ferry.of-namespace" . }}]
  ports: [{port: 8000, protocol: TCP}]
{{- end }}
{{- else }}
{{- range $n, $egress := .Values.egress }}
- from:
    {{- range .namespaces }}
    - {{ include "ferry.of-namespace" . }}
    {{- else }}
    - namespaceSelector: {}
    {{- end }}
  ports: [{port: {{ include "ferry.egress-port" (list $root $n) }}, protocol: TCP}]
{{- end }}
{{- end }}
{{- if include "ferry.is-led" . }}
- from:
    {{- include "ferry.each-other" . | nindent 4 }}
  ports: [{port: 18000, protocol: TCP}]
{{- end }}
{{- end -}}

{{/* Where it gets to: peers that are dialled, targets of a gateway's services, DNS. */}}
{{- define "ferry.policy-out" -}}
{{- range $n, $peer := .Values.peers }}
{{- if .pods }}
# Behind a Service, so by the port of the pod.
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .pods.namespace | quote }}}}
      podSelector:
        matchLabels:
          app.kubernetes.io/name: {{ .pods.name | quote }}
          app.kubernetes.io/part-of: {{ .pods.network | quote }}
  ports: [{port: 18000, protocol: TCP}]
{{- else if .ports }}
- ports:
    {{- range .ports }}
    - {port: {{ .port | int64 }}, protocol: {{ .protocol }}}
    {{- end }}
{{- else if .addresses }}
{{- $ports := list }}
{{- range .addresses }}
{{- $ports = append $ports (include "ferry.policy-port" (list $n .)) }}
{{- end }}
- ports:
    {{- range $ports | uniq }}
    - {{ . }}
    {{- end }}
{{- end }}
{{- end }}
{{- if include "ferry.is-gateway" . }}
{{- $rules := list }}
{{- range .Values.ingress }}
{{- $rules = append $rules (include "ferry.policy-to-target" .forward) }}
{{- end }}
{{- range $rules | uniq }}
{{ . }}
{{- end }}
{{- end }}
{{- if include "ferry.is-led" . }}
- to:
    {{- include "ferry.each-other" . | nindent 4 }}
  ports: [{port: 18000, protocol: TCP}]
{{- end }}
{{- with .Values.traces.endpoint }}
{{ include "ferry.policy-to-target" (trimPrefix "http://" .) }}
{{- end }}
# To anywhere: a cache on the node has an address of its own.
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}

{{/* The port of an address. Called with (list index-of-the-peer address). */}}
{{- define "ferry.policy-port" -}}
{{- $address := index . 1 -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "^([a-z]+://[^/#]*).*" $address "${1}") | trimPrefix ":" -}}
{{- if hasPrefix "file:" $address -}}
{{- fail (printf "peers[%d]: its addresses are in a file, so give the `ports` that are dialled, for the network policy" (index . 0)) -}}
{{- end -}}
{port: {{ $port | default (ternary 80 443 (hasPrefix "ws://" $address)) }}, protocol: {{ ternary "UDP" "TCP" (hasPrefix "quic://" $address) }}}
{{- end -}}

{{/* The rule for a target `host:port`. */}}
{{- define "ferry.policy-to-target" -}}
{{- $port := regexFind "[0-9]+$" . -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- $labels := splitList "." $host -}}
{{- if contains ":" $host -}}
- to: [{ipBlock: {cidr: "{{ $host }}/128"}}]
  ports: [{port: {{ $port }}, protocol: TCP}]
{{- else if regexMatch "^[0-9.]+$" $host -}}
- to: [{ipBlock: {cidr: "{{ $host }}/32"}}]
  ports: [{port: {{ $port }}, protocol: TCP}]
{{- else if regexMatch "^[^.]+[.][^.]+[.]svc([.]|$)" $host -}}
# A policy goes by the port of the pod behind the Service, which is not known here.
- to: [{{ include "ferry.of-namespace" (index $labels 1) }}]
  ports: [{protocol: TCP}]
{{- else -}}
- ports: [{port: {{ $port }}, protocol: TCP}]
{{- end -}}
{{- end -}}
