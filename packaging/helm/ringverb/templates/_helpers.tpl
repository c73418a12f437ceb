{{- /* One release is named as it is; the name of the chart is not put before it twice. */ -}}
{{- define "ringverb.name" -}}
{{- if contains "ringverb" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ringverb" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ringverb.selector" -}}
app.kubernetes.io/name: ringverb
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ringverb.labels" -}}
{{ include "ringverb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ringverb.secret" -}}
{{- .Values.existingSecret | default (include "ringverb.name" .) -}}
{{- end -}}
