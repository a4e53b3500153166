// A test as people write them with testcontainers for Node. Usage: with_testcontainers.mjs IMAGE, with DOCKER_HOST set.
// It dies without clearing up: that is what the reaper is for.
import assert from "node:assert";
import { GenericContainer, Wait } from "testcontainers";

const serve = "mkdir -p /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www";
const container = await new GenericContainer(process.argv[2])
    .withCommand(["sh", "-c", serve])
    .withExposedPorts(80)
    .withWaitStrategy(Wait.forHttp("/", 80))
    .start();
const answer = await fetch(`http://${container.getHost()}:${container.getMappedPort(80)}/`);
assert.equal(await answer.text(), "hello\n");
const { exitCode, output } = await container.exec(["echo", "inside"]);
assert.deepEqual([exitCode, output], [0, "inside\n"]);
console.log("all is well");
process.exit(0);
