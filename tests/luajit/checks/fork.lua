-- A fork out of compiled code. The child goes on with its traces, and makes more, while its parent
-- throws the same ones away and writes others in their place.
local ffi = require("ffi")
ffi.cdef [[
int fork(void);
int pipe(int fds[2]);
long read(int, void *, size_t);
long write(int, const void *, size_t);
int close(int);
int waitpid(int, int *, int);
void _exit(int);
]]
local C = ffi.C
local function work(n, seed)
  local s = seed
  for i = 1, n do s = (s * 31 + i) % 65521; if s % 5 == 0 then s = s + 1 end end
  return s
end
local function churn(rounds)
  local sum = 0
  for n = 1, rounds do
    local code = "local s = 0 for i = 1, 200 do s = s + i %% %d end return s"
    local f = assert(loadstring(code:format(n % 9 + 2)))
    sum = sum + f() + f()
  end
  return sum
end
local expected, churned = {}, churn(60)
for i = 1, 200 do expected[i] = work(300, i) end

local byte = ffi.new("char[1]")
local function works()
  for i = 1, 200 do if work(300, i) ~= expected[i] then return false end end
  return true
end
local function check() return works() and churn(60) == churned end

local good = 0
for round = 1, 5 do
  local up, down, status = ffi.new("int[2]"), ffi.new("int[2]"), ffi.new("int[1]")
  assert(C.pipe(up) == 0 and C.pipe(down) == 0)
  local pid = -1
  -- Hot, so that the call of fork is in a trace from some round on.
  for i = 1, 100 do
    if i == 100 then pid = C.fork() else pid = work(10, i) end
  end
  if pid == 0 then
    C.close(down[1])
    local ok = works()
    C.write(up[1], byte, 1)
    C.read(down[0], byte, 1) -- The parent has written other code.
    ok = ok and works() and check()
    jit.flush()
    ok = ok and check()
    if ok then
      -- A child of the child.
      local second = C.fork()
      if second == 0 then C._exit(check() and 42 or 1) end
      C.waitpid(second, status, 0)
      ok = bit.rshift(status[0], 8) == 42
    end
    C._exit(ok and 42 or 1)
  end
  assert(C.read(up[0], byte, 1) == 1)
  jit.flush()
  assert(churn(200) and check())
  C.write(down[1], byte, 1)
  C.waitpid(pid, status, 0)
  if bit.rshift(status[0], 8) == 42 then good = good + 1 end
  for _, fds in ipairs {up, down} do C.close(fds[0]); C.close(fds[1]) end
end
print(good, "children")
