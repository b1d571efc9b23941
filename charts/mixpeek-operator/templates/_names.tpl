{{- define "mixpeek.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 48 | trimSuffix "-" }}
{{- end }}

{{/* `helm install mixpeek …` makes mixpeek-operator, mixpeek-api and so on, as the plain manifests do. */}}
{{- define "mixpeek.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains "mixpeek" .Release.Name }}
{{- .Release.Name | trimSuffix "-operator" | trunc 48 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-mixpeek" .Release.Name | trunc 48 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels that select the pods of one component: (dict "root" $ "component" "api") */}}
{{- define "mixpeek.selector" -}}
app.kubernetes.io/name: {{ include "mixpeek.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mixpeek.labels" -}}
{{ include "mixpeek.selector" . }}
app.kubernetes.io/part-of: mixpeek
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "mixpeek.metadata" -}}
name: {{ .name | default (printf "%s-%s" (include "mixpeek.fullname" .root) .component) }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "mixpeek.labels" . | nindent 2 }}
{{- end }}

{{- define "mixpeek.serviceAccount" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
{{- $account.name | default (printf "%s-%s" (include "mixpeek.fullname" .root) .component) }}
{{- else }}
{{- $account.name | default "default" }}
{{- end }}
{{- end }}

{{- define "mixpeek.credentials" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "mixpeek.fullname" .)) }}
{{- end }}

{{/* The image of (dict "root" $ "image" .Values.image) */}}
{{- define "mixpeek.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}
