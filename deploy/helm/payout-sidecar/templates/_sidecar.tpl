{{- /*
What the sidecar adds to a pod and a Service: the same as deploy/kustomize/component. tests/deploy compares both.

Each template takes this chart's context: `.` here, (index .Subcharts "payout-sidecar") in a chart that depends on it.
*/ -}}

{{- /* A list item for initContainers: a native sidecar, which Kubernetes starts before the application and stops
after it. */ -}}
{{- define "payout-sidecar.container" -}}
- name: payout-sidecar
  {{- with .Values.image }}
  image: {{ if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
  {{- if ne .pullPolicy "IfNotPresent" }}
  imagePullPolicy: {{ .pullPolicy }}
  {{- end }}
  {{- end }}
  restartPolicy: Always
  env:
    # Probes come from outside the pod, and the default is loopback. `[admin] token` in config.toml protects /api.
    - name: PAYOUT_SIDECAR__ADMIN__LISTEN
      value: 0.0.0.0:{{ .Values.ports.admin }}
    {{- if ne (int .Values.ports.payout) 8080 }}
    - name: PAYOUT_SIDECAR__SERVER__LISTEN
      value: 0.0.0.0:{{ .Values.ports.payout }}
    {{- end }}
    {{- with .Values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: payout
      containerPort: {{ .Values.ports.payout }}
    - name: payout-admin
      containerPort: {{ .Values.ports.admin }}
  # Not /readyz: an unavailable Redis must not stop the application from starting, nor restart anything.
  startupProbe:
    httpGet:
      path: /livez
      port: payout-admin
    periodSeconds: 1
    failureThreshold: 30
  livenessProbe:
    httpGet:
      path: /livez
      port: payout-admin
    periodSeconds: 10
    timeoutSeconds: 3
  readinessProbe:
    httpGet:
      path: /readyz
      port: payout-admin
    periodSeconds: 5
    timeoutSeconds: 3
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    readOnlyRootFilesystem: true
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    # Whole directories, since a subPath mount does not follow changes.
    - name: payout-sidecar-config
      mountPath: /etc/payout-sidecar
      readOnly: true
    - name: payout-sidecar-secrets
      mountPath: /secrets
      readOnly: true
    {{- with .Values.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* List items for the pod's volumes. */ -}}
{{- define "payout-sidecar.volumes" -}}
- name: payout-sidecar-config
  configMap:
    name: {{ .Values.existingConfigMap | default (printf "%s-config" (include "payout-sidecar.fullname" .)) }}
- name: payout-sidecar-secrets
  secret:
    secretName: {{ .Values.secretName }}
    # The files belong to root and the sidecar runs as uid 65532. No other container mounts them.
    defaultMode: 0444
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels for the pod template: the NetworkPolicy, the PodDisruptionBudget and the ServiceMonitor select the pods by
them. */ -}}
{{- define "payout-sidecar.podLabels" -}}
payout-sidecar: {{ .Release.Name }}
{{- end }}

{{- /* For the pod's terminationGracePeriodSeconds. */ -}}
{{- define "payout-sidecar.gracePeriod" -}}
{{ .Values.terminationGracePeriodSeconds }}
{{- end }}

{{- /* For the Service's targetPort. A number, since Kubernetes before 1.32 does not find a named port of a native
sidecar. */ -}}
{{- define "payout-sidecar.targetPort" -}}
{{ .Values.ports.payout }}
{{- end }}
