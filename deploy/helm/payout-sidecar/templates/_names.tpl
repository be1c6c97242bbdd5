{{- /* Names and labels of this chart's own objects. */ -}}

{{- /* Truncated, to leave room for suffixes. */ -}}
{{- define "payout-sidecar.fullname" -}}
{{- if .Values.nameOverride }}
{{- .Values.nameOverride }}
{{- else if contains "payout-sidecar" .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-payout-sidecar" (.Release.Name | trunc 38 | trimSuffix "-") }}
{{- end }}
{{- end }}

{{- define "payout-sidecar.labels" -}}
app.kubernetes.io/name: payout-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "payout-sidecar.application" -}}
{{ .Values.application.name | default .Release.Name }}
{{- end }}

{{- define "payout-sidecar.applicationLabels" -}}
app.kubernetes.io/name: {{ include "payout-sidecar.application" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
