# A static binary in an image with nothing else: no shell, no root, and a root
# file system that can be mounted read-only. Build and run:
#
#   docker build -t hedgerow .
#   docker run --read-only -v hedgerow:/var/lib/hedgerow \
#     -p 1883:1883 -p 5683:5683/udp -p 127.0.0.1:14265:14265 hedgerow
#
# Mount your configuration over /etc/hedgerow/hedgerow.yaml. The one inside
# listens on every address of the container's network and admits no device;
# where every machine may be trusted, admit devices without login by appending
#
#   run --config /etc/hedgerow/hedgerow.yaml --set mqtt.anonymous=true --set coap.anonymous=true
#
# A directory of the host in place of the volume must belong to user 65532.
#
# The identity key and the admin token are made at the first start in
# /var/lib/hedgerow/secrets; keep that directory out of backups of the data, or
# mount it from another volume, so that a copy never clones the identity.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/hedgerow ./gateway/cmd/hedgerow
# Files of the final image, which has no shell to make them.
RUN mkdir -p /out/etc/hedgerow /out/home/data /out/home/secrets && \
    cp deploy/docker.yaml /out/etc/hedgerow/hedgerow.yaml && \
    echo 'hedgerow:x:65532:65532::/var/lib/hedgerow:/sbin/nologin' > /out/etc/passwd && \
    echo 'hedgerow:x:65532:' > /out/etc/group && \
    chmod 700 /out/home /out/home/data /out/home/secrets

FROM scratch
COPY --from=build /out/etc /etc
COPY --from=build --chown=65532:65532 /out/home /var/lib/hedgerow
COPY --from=build /out/hedgerow /usr/bin/hedgerow
USER 65532:65532
VOLUME /var/lib/hedgerow
EXPOSE 1883/tcp 5683/udp 14265/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=20s --retries=3 \
    CMD ["/usr/bin/hedgerow", "health", "--config", "/etc/hedgerow/hedgerow.yaml"]
ENTRYPOINT ["/usr/bin/hedgerow"]
CMD ["run", "--config", "/etc/hedgerow/hedgerow.yaml"]
