# Stands in for rust:VERSION-slim where Docker Hub cannot be reached. Its context is what rustup has on the machine.
FROM fawn-stand-in
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo
ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY . /usr/local/
