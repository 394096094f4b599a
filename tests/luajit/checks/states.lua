-- States that come and go, and states on threads of their own.
local ffi = require("ffi")
ffi.cdef [[
typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *);
void lua_close(lua_State *);
int luaL_loadstring(lua_State *, const char *);
int lua_pcall(lua_State *, int, int, int);
double lua_tonumber(lua_State *, int);
const char *lua_tolstring(lua_State *, int, size_t *);
void lua_settop(lua_State *, int);
int pthread_create(unsigned long *, const void *, void *(*)(void *), void *);
int pthread_join(unsigned long, void **);
]]
local C = ffi.C
local program = [[
  local ffi = require("ffi")
  function work(seed)
    local s, t = seed, {}
    for i = 1, 20000 do s = (s * 31 + i) % 65521; t[i % 50] = {s, tostring(s)} end
    for n = 1, 30 do
      local code = "local s = 0 for i = 1, 200 do s = s + i %% %d end return s"
      local f = assert(loadstring(code:format(n + 1)))
      s = s + f() + f()
    end
    jit.flush()
    return s
  end
  local callback
  function entry(seed)
    callback = ffi.cast("void *(*)(void *)", function() result = work(seed) end)
    return tonumber(ffi.cast("intptr_t", callback))
  end
]]
local function run(L, code)
  if C.luaL_loadstring(L, code) ~= 0 or C.lua_pcall(L, 0, 1, 0) ~= 0 then
    error(ffi.string(C.lua_tolstring(L, -1, nil)))
  end
  local value = C.lua_tonumber(L, -1)
  C.lua_settop(L, 0)
  return value
end
local function open()
  local L = C.luaL_newstate()
  assert(L ~= nil)
  C.luaL_openlibs(L)
  run(L, program)
  return L
end
local function mapped()
  local count = 0
  for line in io.lines("/proc/self/maps") do if line:find("LuaJIT") then count = count + 1 end end
  return count
end

local sum = 0
local function visit(i)
  local L = open()
  sum = sum + run(L, "return work(" .. i .. ")")
  C.lua_close(L)
end
for i = 1, 3 do visit(i) end
for i = 1, 1000 do sum = sum + i % 3 end -- This state's own code is mapped, too.
local before = mapped()
for i = 1, 30 do visit(i) end
assert(mapped() == before, "code of closed states is mapped")
print(sum)

-- This state's own functions are not called meanwhile.
for round = 1, 3 do
  local states, threads = {}, ffi.new("unsigned long[4]")
  for i = 1, 4 do states[i] = open() end
  for i = 1, 4 do
    local address = run(states[i], "return entry(" .. i .. ")")
    local entry = ffi.cast("void *(*)(void *)", ffi.cast("intptr_t", address))
    assert(C.pthread_create(threads + i - 1, nil, entry, nil) == 0)
  end
  for i = 1, 4 do assert(C.pthread_join(threads[i - 1], nil) == 0) end
  for i = 1, 4 do
    sum = sum + run(states[i], "return result")
    C.lua_close(states[i])
  end
end
print(sum)
