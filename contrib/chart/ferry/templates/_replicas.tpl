{{/* How many tunnels the pod is. */}}
{{- define "ferry.replicas" -}}
{{- .Values.replicas | default 1 | int64 -}}
{{- end -}}

{{/* "yes" if there are several. */}}
{{- define "ferry.is-replicated" -}}
{{- if gt (include "ferry.replicas" . | int64) 1 }}yes{{ end -}}
{{- end -}}

{{/* "yes" if links come to any of several tunnels, which lead them to the right one. */}}
{{- define "ferry.is-led" -}}
{{- if and (include "ferry.is-replicated" .) (include "ferry.is-dialled" .) }}yes{{ end -}}
{{- end -}}

{{/* The headless Service that stands for all of them. */}}
{{- define "ferry.replicas-service" -}}
{{- include "ferry.name" . }}-replicas
{{- end -}}

{{/* On different nodes, where there are as many. */}}
{{- define "ferry.apart" -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "ferry.selector" . | nindent 14 }}
{{- end -}}

{{/* The pods themselves, to a network policy. */}}
{{- define "ferry.each-other" -}}
- podSelector:
    matchLabels:
      {{- include "ferry.selector" . | nindent 6 }}
{{- end -}}
