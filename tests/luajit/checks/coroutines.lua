-- Coroutines that are resumed from compiled loops, and compile loops of their own.
local function range(n)
  return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end)
end
local sum = 0
for round = 1, 100 do
  for i in range(200) do
    sum = sum + i
    for k = 1, 20 do sum = sum + k % 3 end
  end
end
print(sum)

local function sieve(limit)
  local function numbers() for i = 2, limit do coroutine.yield(i) end end
  local function filter(p, from)
    return function()
      while true do
        local n = from()
        if not n then return end
        if n % p ~= 0 then coroutine.yield(n) end
      end
    end
  end
  local from, primes = coroutine.wrap(numbers), {}
  while #primes < 50 do
    local p = from()
    primes[#primes + 1] = p
    from = coroutine.wrap(filter(p, from))
  end
  return primes
end
print(table.concat(sieve(1000), " "))

local threads, left = {}, 0
for i = 1, 1000 do
  threads[i] = coroutine.create(function(a)
    for n = 1, i % 30 do a = a + coroutine.yield(a * n) end
    return a
  end)
end
sum = 0
for step = 1, 40 do
  for i = 1, 1000 do
    if coroutine.status(threads[i]) ~= "dead" then
      local ok, value = coroutine.resume(threads[i], step)
      assert(ok)
      sum = (sum + value) % 1000000007
    end
  end
end
for i = 1, 1000 do if coroutine.status(threads[i]) == "dead" then left = left + 1 end end
print(sum, left)
