{{/* What every pod says about its rights: none. (dict "user" 65532) */}}
{{- define "mixpeek.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mixpeek.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where the pods of a component may run. */}}
{{- define "mixpeek.scheduling" -}}
{{- $values := index .root.Values .component }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
  {{- toYaml $values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "mixpeek.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mixpeek.secretVariable" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- end }}

{{/* Where the stores are: the same for operator and API. */}}
{{- define "mixpeek.stores" -}}
{{- $full := include "mixpeek.fullname" . }}
{{- $own := include "mixpeek.credentials" . }}
{{- if .Values.mongodb.enabled }}
{{ include "mixpeek.secretVariable" (dict "name" "MONGODB_PASSWORD" "secret" $own "key" "mongodb-password") }}
- name: MIXPEEK_MONGO_URI
  value: mongodb://mixpeek:$(MONGODB_PASSWORD)@{{ $full }}-mongodb:27017/mixpeek?authSource=admin
{{- else }}
{{ include "mixpeek.secretVariable" (dict "name" "MIXPEEK_MONGO_URI" "secret" (required "mongodb.external.existingSecret: name the Secret with the URI of your MongoDB, or set mongodb.enabled" .Values.mongodb.external.existingSecret) "key" .Values.mongodb.external.key) }}
{{- end }}
{{- if .Values.redis.enabled }}
{{ include "mixpeek.secretVariable" (dict "name" "REDIS_PASSWORD" "secret" $own "key" "redis-password") }}
- name: MIXPEEK_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ $full }}-redis:6379/0
{{- else }}
{{ include "mixpeek.secretVariable" (dict "name" "MIXPEEK_REDIS_URL" "secret" (required "redis.external.existingSecret: name the Secret with the URL of your Redis, or set redis.enabled" .Values.redis.external.existingSecret) "key" .Values.redis.external.key) }}
{{- end }}
{{- if .Values.qdrant.enabled }}
- name: MIXPEEK_QDRANT_URL
  value: http://{{ $full }}-qdrant:6333
{{ include "mixpeek.secretVariable" (dict "name" "MIXPEEK_QDRANT_API_KEY" "secret" $own "key" "qdrant-api-key") }}
{{- else }}
- name: MIXPEEK_QDRANT_URL
  value: {{ required "qdrant.external.url: write the URL of your Qdrant, or set qdrant.enabled" .Values.qdrant.external.url }}
{{- with .Values.qdrant.external.existingSecret }}
{{ include "mixpeek.secretVariable" (dict "name" "MIXPEEK_QDRANT_API_KEY" "secret" . "key" $.Values.qdrant.external.key) }}
{{- end }}
{{- end }}
{{- if .Values.objectStorage.enabled }}
- name: MIXPEEK_BLOBS_URL
  value: s3://{{ .Values.objectStorage.bucket }}
- name: MIXPEEK_BLOBS_ENDPOINT_URL
  value: http://{{ $full }}-objects:7070
- name: AWS_REGION
  value: us-east-1
{{ include "mixpeek.secretVariable" (dict "name" "AWS_ACCESS_KEY_ID" "secret" $own "key" "s3-access-key") }}
{{ include "mixpeek.secretVariable" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" $own "key" "s3-secret-key") }}
{{- else }}
{{- with .Values.objectStorage.external }}
- name: MIXPEEK_BLOBS_URL
  value: {{ required "objectStorage.external.url: write where files go (s3://bucket), or set objectStorage.enabled" .url }}
{{- with .endpoint }}
- name: MIXPEEK_BLOBS_ENDPOINT_URL
  value: {{ . }}
{{- end }}
- name: AWS_REGION
  value: {{ .region }}
{{- if .existingSecret }}
{{ include "mixpeek.secretVariable" (dict "name" "AWS_ACCESS_KEY_ID" "secret" .existingSecret "key" "access-key") }}
{{ include "mixpeek.secretVariable" (dict "name" "AWS_SECRET_ACCESS_KEY" "secret" .existingSecret "key" "secret-key") }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* What Ray's pods run, and where they have the credentials of the object storage from. */}}
{{- define "mixpeek.machines" -}}
- name: MIXPEEK_ENGINE_IMAGE
  value: {{ include "mixpeek.image" (dict "root" $ "image" .Values.engineImage) }}
- name: MIXPEEK_ENGINE_IMAGE_PULL_POLICY
  value: {{ .Values.engineImage.pullPolicy }}
{{- with .Values.imagePullSecrets }}
- name: MIXPEEK_ENGINE_IMAGE_PULL_SECRETS
  value: {{ range $index, $each := . }}{{ if $index }},{{ end }}{{ $each.name }}{{ end }}
{{- end }}
{{- if .Values.objectStorage.enabled }}
- name: MIXPEEK_RAY_POD_SECRET
  value: {{ include "mixpeek.credentials" . }}
- name: MIXPEEK_RAY_POD_SECRET_KEYS
  value: AWS_ACCESS_KEY_ID=s3-access-key,AWS_SECRET_ACCESS_KEY=s3-secret-key
{{- else if .Values.objectStorage.external.existingSecret }}
- name: MIXPEEK_RAY_POD_SECRET
  value: {{ .Values.objectStorage.external.existingSecret }}
- name: MIXPEEK_RAY_POD_SECRET_KEYS
  value: AWS_ACCESS_KEY_ID=access-key,AWS_SECRET_ACCESS_KEY=secret-key
{{- end }}
{{- end }}

{{/* Variables of operator and API alike, the component's own last. */}}
{{- define "mixpeek.environment" -}}
{{- $known := .root.Files.Get "files/settings.yaml" | fromYamlArray }}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: MIXPEEK_DATA
  value: /data
- name: MIXPEEK_RESOURCES
  value: kubernetes
- name: MIXPEEK_LOG_FORMAT
  value: json
{{ include "mixpeek.secretVariable" (dict "name" "MIXPEEK_ENCRYPTION_KEY" "secret" (include "mixpeek.credentials" .root) "key" "encryption-key") }}
{{ include "mixpeek.stores" .root | trim }}
{{- if .root.Values.kuberay.enabled }}
{{ include "mixpeek.machines" .root | trim }}
{{- end }}
{{- range $name, $value := .root.Values.settings }}
{{- if not (has $name $known) }}
{{- fail (printf "settings: %s is no setting; there are %s" $name (join ", " $known)) }}
{{- end }}
- name: {{ $name }}
  # Helm's numbers are floating; as JSON a large one keeps its digits.
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
