{{/* A store in the cluster: one replica, its volume and its Service.
(dict "root" $ "component" "qdrant" "values" .Values.qdrant "user" 1000 "ports" (dict "http" 6333) "mount" "/data"
"container" "the rest of the container") */}}
{{- define "mixpeek.store" -}}
{{- $scope := dict "root" .root "component" .component }}
{{- $persistent := and (hasKey .values "persistence") .values.persistence.enabled }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "mixpeek.metadata" $scope | nindent 2 }}
spec:
  replicas: 1
  serviceName: {{ include "mixpeek.fullname" .root }}-{{ .component }}
  selector:
    matchLabels:
      {{- include "mixpeek.selector" $scope | nindent 6 }}
  {{- if $persistent }}
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: {{ ternary "Retain" "Delete" .root.Values.stores.keepData }}
    whenScaled: Retain
  volumeClaimTemplates:
    - metadata: {name: data}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.persistence.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ .values.persistence.size }}}}
  {{- end }}
  template:
    metadata:
      labels:
        {{- include "mixpeek.labels" $scope | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- include "mixpeek.podSecurity" . | nindent 6 }}
      terminationGracePeriodSeconds: 60
      containers:
        - name: {{ .component }}
          image: {{ include "mixpeek.image" (dict "root" .root "image" .values.image) }}
          imagePullPolicy: {{ .values.image.pullPolicy }}
          {{- include "mixpeek.containerSecurity" . | nindent 10 }}
          {{- .container | nindent 10 }}
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
            {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: {{ .mount }}}
            {{- range $index, $path := .scratch }}
            - {name: scratch, mountPath: {{ $path }}, subPath: scratch-{{ $index }}}
            {{- end }}
      volumes:
        {{- if not $persistent }}
        - name: data
          emptyDir: {}
        {{- end }}
        - name: scratch
          emptyDir: {sizeLimit: 1Gi}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "mixpeek.metadata" $scope | nindent 2 }}
spec:
  selector:
    {{- include "mixpeek.selector" $scope | nindent 4 }}
  ports:
    {{- range $name, $port := .ports }}
    - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}, protocol: TCP}
    {{- end }}
{{- end }}

{{- define "mixpeek.store.qdrant" -}}
env:
  {{- include "mixpeek.secretVariable" (dict "name" "QDRANT__SERVICE__API_KEY" "secret" .secret "key" "qdrant-api-key") | nindent 2 }}
  - {name: QDRANT__TELEMETRY_DISABLED, value: "true"}
  - {name: QDRANT_INIT_FILE_PATH, value: /qdrant/init/.qdrant-initialized}
startupProbe:
  # Loading what the volume holds takes its time.
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}

{{- define "mixpeek.store.mongodb" -}}
env:
  - {name: HOME, value: /tmp}
  - {name: MONGO_INITDB_ROOT_USERNAME, value: mixpeek}
  {{- include "mixpeek.secretVariable" (dict "name" "MONGO_INITDB_ROOT_PASSWORD" "secret" .secret "key" "mongodb-password") | nindent 2 }}
startupProbe:
  tcpSocket: {port: mongodb}
  periodSeconds: 3
  failureThreshold: 60
readinessProbe:
  tcpSocket: {port: mongodb}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: mongodb}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}

{{- define "mixpeek.store.redis" -}}
args:
  - redis-server
  - --requirepass
  - $(REDISCLI_AUTH)
  - --save
  - ""
  - --appendonly
  - "no"
  - --maxmemory
  - {{ .root.Values.redis.maxMemory | quote }}
  - --maxmemory-policy
  - allkeys-lru
env:
  {{- include "mixpeek.secretVariable" (dict "name" "REDISCLI_AUTH" "secret" .secret "key" "redis-password") | nindent 2 }}
readinessProbe:
  exec: {command: [redis-cli, ping]}
  periodSeconds: 5
livenessProbe:
  exec: {command: [redis-cli, ping]}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}

{{- define "mixpeek.store.objects" -}}
args: [--port, ":7070", --health, /healthz, posix, /buckets]
env:
  {{- include "mixpeek.secretVariable" (dict "name" "ROOT_ACCESS_KEY" "secret" .secret "key" "s3-access-key") | nindent 2 }}
  {{- include "mixpeek.secretVariable" (dict "name" "ROOT_SECRET_KEY" "secret" .secret "key" "s3-secret-key") | nindent 2 }}
readinessProbe:
  httpGet: {path: /healthz, port: s3}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: s3}
  periodSeconds: 15
  timeoutSeconds: 5
{{- end }}
