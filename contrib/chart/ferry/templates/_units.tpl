{{/* Whole seconds of `10m` or `1h30m500ms`, rounded up. */}}
{{- define "ferry.seconds" -}}
{{- $units := dict "h" 3600000000 "m" 60000000 "s" 1000000 "ms" 1000 "us" 1 "ns" 0 -}}
{{- $micros := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $count := regexFind "^[0-9]+" . | int64 -}}
{{- $micros = add $micros (mul $count (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- div (add $micros 999999) 1000000 -}}
{{- end -}}

{{/* The bytes of `512MiB`. */}}
{{- define "ferry.bytes" -}}
{{- $units := dict "TiB" 1099511627776 "GiB" 1073741824 "MiB" 1048576 "KiB" 1024
                   "TB" 1000000000000 "GB" 1000000000 "MB" 1000000 "kB" 1000 "B" 1 "" 1 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[A-Za-z]*$" .)) -}}
{{- end -}}

{{/* Bytes as Kubernetes writes them, in MiB rounded up, or GiB. */}}
{{- define "ferry.quantity" -}}
{{- $mebibytes := div (add . 1048575) 1048576 -}}
{{- if and (eq (mod $mebibytes 1024) 0) (gt $mebibytes 0) -}}
{{- div $mebibytes 1024 }}Gi
{{- else -}}
{{- $mebibytes }}Mi
{{- end -}}
{{- end -}}
