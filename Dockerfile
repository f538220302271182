# One image for API, workers, scheduler and the migration; docker-compose.yml says which it is.
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libvirt-dev pkg-config
WORKDIR /srv/vps
COPY requirements.lock .
RUN python -m venv /srv/venv && /srv/venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM python:3.11-slim-bookworm
# openssh-client: libvirt reaches hosts by qemu+ssh:// through it.  qemu-utils: images are checked by qemu-img.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libvirt0 openssh-client qemu-utils tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 vps \
    && install -d -o vps /var/lib/vps/images /var/lib/vps/backups
COPY --from=build /srv/venv /srv/venv
WORKDIR /srv/vps
COPY manage.py ./
COPY core core
COPY vpsorg vpsorg
COPY accounts accounts
COPY backups backups
COPY billing billing
COPY webhooks webhooks
COPY images images
COPY plans plans
COPY inventory inventory
COPY servers servers
COPY provisioning provisioning
COPY monitoring monitoring
# MALLOC_ARENA_MAX: threads that move pieces of backups would each leave freed memory behind, eight times for each core.
ENV PATH=/srv/venv/bin:$PATH PYTHONUNBUFFERED=1 VPS_IMAGE_DIR=/var/lib/vps/images VPS_BACKUP_STORE=/var/lib/vps/backups \
    MALLOC_ARENA_MAX=2
USER vps
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["gunicorn", "--config", "python:vpsorg.gunicorn", "--bind", "0.0.0.0:8000"]
