{{/* What the schema cannot say: what has no default, and what goes with what. All of it at once. */}}
{{- define "ferry.check" -}}
{{- $gateway := include "ferry.is-gateway" . -}}
{{- $problems := list -}}
{{- if not .Values.image -}}
{{- $problems = append $problems "image: give the image with its tag, such as registry.example.com/ferry:0.1.0" -}}
{{- end -}}
{{- if not .Values.cluster -}}
{{- $problems = append $problems "cluster: say what this cluster is called, such as cluster-a" -}}
{{- end -}}
{{- if and .Values.identity.secret .Values.identity.pem -}}
{{- $problems = append $problems "identity: give `secret` or `pem`, not both" -}}
{{- else if not (or .Values.identity.secret .Values.identity.pem) -}}
{{- $problems = append $problems "identity: give `secret`, the name of a Secret with the key identity.key, or `pem`; `ferry keygen` makes a key" -}}
{{- else if and .Values.identity.pem (not (contains "-----BEGIN PRIVATE KEY-----" .Values.identity.pem)) -}}
{{- $problems = append $problems "identity.pem: not a private key in PEM, as `ferry keygen` writes it" -}}
{{- end -}}
{{- if and .Values.namespace.create (not .Values.namespace.name) -}}
{{- $problems = append $problems "namespace: give the `name` of the one to create" -}}
{{- end -}}
{{- if and .Values.namespace.create (eq .Values.namespace.name .Release.Namespace) -}}
{{- $problems = append $problems "namespace: Helm keeps the release in this namespace, so it must be there before; add --namespace OTHER, or leave `create` out and add --create-namespace" -}}
{{- end -}}
{{- if and (ne .Values.service.type "none") (not (or .Values.listen.tcp .Values.listen.quic)) -}}
{{- $problems = append $problems "service: it leads to a tunnel that does not listen; set listen.tcp, or listen.quic" -}}
{{- end -}}
{{- if and .Values.websocket.host (not .Values.listen.websocket) -}}
{{- $problems = append $problems "websocket.host: it leads to a tunnel that does not listen for WebSockets; set listen.websocket" -}}
{{- end -}}
{{- if and .Values.metrics.pod_monitor .Values.network_policy (not .Values.metrics.namespace) -}}
{{- $problems = append $problems "metrics.pod_monitor: give `metrics.namespace`, that of Prometheus; the network policy keeps others out" -}}
{{- end -}}
{{- if include "ferry.is-replicated" . -}}
{{- if not $gateway -}}
{{- $problems = append $problems "replicas: only a gateway has several; a web-app keeps its messages on a volume of one pod" -}}
{{- end -}}
{{- if gt (len (include "ferry.replicas-service" .)) 63 -}}
{{- $problems = append $problems (printf "replicas: the Service %s would have a name of more than 63 characters; give a `name` of 54 at most" (include "ferry.replicas-service" .)) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $n, $peer := .Values.peers -}}
{{- if has .name $names -}}
{{- $problems = append $problems (printf "peers[%d]: a second peer %s" $n .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $services := list -}}
{{- range $n, $egress := .Values.egress -}}
{{- if not (has .peer $names) -}}
{{- $problems = append $problems (printf "egress[%d].peer: %s is not one of `peers`" $n .peer) -}}
{{- end -}}
{{- if and $gateway (has .service $services) -}}
{{- $problems = append $problems (printf "egress[%d].service: a second Service %s" $n .service) -}}
{{- end -}}
{{- $services = append $services .service -}}
{{- if and $gateway (not .port) -}}
{{- $problems = append $problems (printf "egress[%d]: give the `port` where applications reach %s" $n .service) -}}
{{- end -}}
{{- end -}}
{{- $services = list -}}
{{- range $n, $ingress := .Values.ingress -}}
{{- if has .service $services -}}
{{- $problems = append $problems (printf "ingress[%d].service: a second service %s" $n .service) -}}
{{- end -}}
{{- $services = append $services .service -}}
{{- range .allow -}}
{{- if not (has . $names) -}}
{{- $problems = append $problems (printf "ingress[%d].allow: %s is not one of `peers`" $n .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $list := list "peers" "egress" "ingress" -}}
{{- range $n, $entry := get $.Values $list -}}
{{- with $entry.limits -}}
{{- with .bytes_per_second -}}
{{- if lt (include "ferry.bytes" . | int64) 1024 -}}
{{- $problems = append $problems (printf "%s[%d].limits.bytes_per_second: %s is too small; use at least 1KiB" $list $n .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $gateway -}}
{{- with .Values.web_app -}}
{{- if and .hooks .hooks_config_map -}}
{{- $problems = append $problems "web_app: give `hooks` or `hooks_config_map`, not both" -}}
{{- end -}}
{{- if and .expose (not (or .token.secret .token.value)) -}}
{{- $problems = append $problems "web_app.token: who may use the HTTP API needs a token; give `secret`, the name of a Secret with the key token, or `value`" -}}
{{- end -}}
{{- if and .token.secret .token.value -}}
{{- $problems = append $problems "web_app.token: give `secret` or `value`, not both" -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.template "ws-initiator") (not .Values.egress) -}}
{{- $problems = append $problems "egress: an initiator needs one, with the terminator's `service` and `peer`" -}}
{{- end -}}
{{- if and (eq .Values.template "ws-terminator") (not .Values.ingress) -}}
{{- $problems = append $problems "ingress: a terminator needs one, with `service`, `forward: 127.0.0.1:8000`, `proxy_protocol: v2` and who may reach it (`allow`)" -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "these values do not make a pod of Ferry:\n  * %s\n" (join "\n  * " $problems)) -}}
{{- end -}}
{{- end -}}
